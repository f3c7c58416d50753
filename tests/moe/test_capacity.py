import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe

NO = moe.NO_EXPERT


def _plain_limit(ids, capacity, order):
  """Pair by pair in the given order of (token, choice)."""
  kept, load = np.array(ids), {}
  for n, k in order:
    e = ids[n, k]
    load[e] = load.get(e, 0) + 1
    if e == NO or load[e] > capacity:
      kept[n, k] = NO
  return kept


@pytest.mark.parametrize("capacity", [1, 3, 100])
@pytest.mark.parametrize("first_choices_first", [False, True])
def test_equals_a_loop_over_pairs(capacity, first_choices_first):
  rng = np.random.default_rng(8)
  num_tokens = 13
  ids = np.array([rng.permutation(5)[:2] for _ in range(num_tokens)], np.int32)
  ids[4] = NO
  gates = rng.uniform(size=ids.shape).astype(np.float32)
  routing = moe.Routing(
    jnp.array(ids), jnp.array(gates), jnp.full((num_tokens, 5), 0.2)
  )
  limit = functools.partial(
    moe.limit_capacity,
    capacity=capacity,
    first_choices_first=first_choices_first,
  )
  limited = jax.jit(limit)(routing)
  order = [(n, k) for n in range(num_tokens) for k in range(2)]
  if first_choices_first:
    order.sort(key=lambda pair: pair[::-1])
  expected = _plain_limit(ids, capacity, order)
  np.testing.assert_array_equal(limited.expert_ids, expected)
  np.testing.assert_array_equal(
    limited.gates, np.where(expected == NO, 0, gates)
  )


def test_capacity_by_hand():
  # 10 tokens x 2 choices over 8 experts are 2.5 each, times 1.25 is 3.125.
  assert moe.expert_capacity(10, 8, 2) == 4
  assert moe.expert_capacity(8, 8, 1, capacity_factor=1.0) == 1
  assert moe.expert_capacity(1, 128, 1) == 1


def test_refuses_capacities_of_nothing():
  routing = moe.top_k(jnp.ones((2, 3)), 1)
  with pytest.raises(ValueError, match="capacity=0"):
    moe.limit_capacity(routing, 0)
  for capacity in (2**31, float("nan"), 1.5):
    with pytest.raises(ValueError, match=f"capacity={capacity}"):
      moe.limit_capacity(routing, capacity)
  for factor in (0.0, -1.0, float("nan"), float("inf"), 1e300):
    with pytest.raises(ValueError, match=re.escape(f"factor={factor}")):
      moe.expert_capacity(2, 3, 1, capacity_factor=factor)
  assert moe.expert_capacity(2**31 - 1, 1, 1, capacity_factor=1.0) == 2**31 - 1
  with pytest.raises(ValueError, match="num_tokens=2147483648"):
    moe.expert_capacity(2**31, 1, 1, capacity_factor=1.0)
  with pytest.raises(ValueError, match="num_experts=0"):
    moe.expert_capacity(2, 0, 1)
