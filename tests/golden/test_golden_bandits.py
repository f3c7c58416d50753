"""100 rounds of eight bandits on a small synthetic stream."""

import functools

import golden
import pytest

from tanbr_jax import bandits
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.online import rollout

ASCENDS = {
  "tanbr": True,
  "tanbr_paper": False,
  "multitask_ts": True,
  "lin_ucb": True,
  "neural_ucb": False,
  "hoo": False,
  "hct": False,
  "gp_ucb": True,
}
# One of the paper's own, one of its tree, one linear, one of the best.
QUICK = {"hoo", "lin_ucb", "multitask_ts", "tanbr"}
SIZES = {"num_experts": 4, "num_tasks": 3}


@functools.cache
def environment():
  return synthetic.synthetic(
    "quadratic", **SIZES, task_mix=mixes.drift(num_tasks=3), requests=4
  )


def record(name):
  trace = rollout.run(
    bandits.REGISTRY[name](**SIZES),
    environment(),
    num_rounds=100,
    seeds=[7],
    chunk_size=50,
    progress=False,
  )
  return {
    "merge_weights": trace.merge_weights,
    "expected_reward": trace.expected_reward,
  }


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
    for name in ASCENDS
  ],
)
def test_golden_trace(name):
  golden.check(name, record(name), ascends=ASCENDS[name])
