"""200 rounds of eight bandits on a small synthetic stream."""

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
# Trees and bounds that other traces, and tests against other code, have too.
SLOW = {"gp_ucb", "hoo", "tanbr_paper"}
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
    num_rounds=200,
    seeds=[7],
    chunk_size=100,
    progress=False,
  )
  return {
    "merge_weights": trace.merge_weights,
    "expected_reward": trace.expected_reward,
  }


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
    for name in ASCENDS
  ],
)
def test_golden_trace(name):
  golden.check(name, record(name), ascends=ASCENDS[name])
