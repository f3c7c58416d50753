import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.moe import GroupLimit
from tanbr_jax.moe.scores import limit_groups, pick, pick_dense


@pytest.mark.parametrize("form", [pick, pick_dense])
def test_picked_values_and_their_slopes(form):
  # The form without a gather is what an accelerator runs.
  values = np.array([[0.1, 0.2, np.nan], [0.5, np.inf, 0.4]], np.float32)
  ids = jnp.array([[1, 0], [0, 2]])

  @jax.jit
  def run(values, cotangent):
    found, pullback = jax.vjp(lambda values: form(values, ids), values)
    return found, pullback(cotangent)

  found, (grad,) = run(values, np.array([[1, 2], [3, 4]], np.float32))
  np.testing.assert_array_equal(
    found, np.array([[0.2, 0.1], [0.5, 0.4]], np.float32)
  )
  np.testing.assert_array_equal(grad, [[2, 1, 0], [3, 0, 4]])


def test_groups_by_their_best_and_by_their_best_two():
  scores = jnp.array([[0.9, 0.0, 0.5, 0.6, 0.1, 0.2, 0.4, 0.3]])
  # Best: .9, .6, .2, .4; sums of two: .9, 1.1, .3, .7.
  best = limit_groups(scores, GroupLimit(4, 1))
  np.testing.assert_array_equal(best[0, :2], scores[0, :2])
  assert np.isneginf(best[0, 2:]).all()
  two = limit_groups(scores, GroupLimit(4, 2, "top2_sum"))
  np.testing.assert_array_equal(two[0, :4], scores[0, :4])
  assert np.isneginf(two[0, 4:]).all()


@pytest.mark.parametrize(
  ("limit", "message"),
  [
    (GroupLimit(3, 1), "num_groups=3, num_experts=4"),
    (GroupLimit(0, 1), "num_groups=0, num_experts=4"),
    (GroupLimit(2, 3), "num_selected=3, num_groups=2"),
    (GroupLimit(2, 0), "num_selected=0, num_groups=2"),
    (GroupLimit(2, 1, "mean"), "score='mean'"),
    (GroupLimit(4, 1, "top2_sum"), "num_groups=4, num_experts=4"),
  ],
)
def test_refuses_impossible_groups(limit, message):
  with pytest.raises(ValueError, match=message):
    limit_groups(jnp.ones((1, 4)), limit)
