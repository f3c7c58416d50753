"""200 rounds of eight bandits on a small synthetic stream."""

import functools

import golden
import pytest

from tanbr_jax import bandits
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.online import rollout

NAMES = (
  "tanbr",
  "tanbr_paper",
  "multitask_ts",
  "lin_ucb",
  "neural_ucb",
  "hoo",
  "hct",
  "gp_ucb",
)
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


@pytest.mark.parametrize("name", NAMES)
def test_golden_trace(name):
  golden.check(name, record(name))
