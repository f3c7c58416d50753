import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import kernels
from tanbr_jax.kernels.selection import ids_by_rank

FORMS = {
  "public": kernels.largest_ids,
  # What a GPU runs without its kernel.
  "by rank": ids_by_rank,
}


def _order(scores):
  """Indices from the largest score to the smallest, ties in order."""
  as_infinite = np.where(np.isnan(scores), np.inf, scores.astype(np.float64))
  return np.argsort(-as_infinite, axis=-1, kind="stable")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_equals_a_stable_sort(form, count):
  # Small integers, so that most scores tie with others.
  scores = np.random.default_rng(0).integers(-2, 3, (2, 9, 8))
  scores = scores.astype(np.float32)
  scores[0, 0, ::2] = -np.inf
  scores[0, 1] = np.inf
  scores[0, 2] = 0.0
  run = jax.jit(FORMS[form], static_argnums=1)
  ids = run(scores, count)
  np.testing.assert_array_equal(ids, _order(scores)[..., :count])
  assert ids.dtype == jnp.int32


@pytest.mark.parametrize("form", FORMS)
def test_ids_differ_and_are_in_range_whatever_the_scores_hold(form):
  scores = np.array([[np.nan] * 4, [np.nan, 1, np.nan, 2]], np.float32)
  ids = np.array(jax.jit(FORMS[form], static_argnums=1)(scores, 4))
  np.testing.assert_array_equal(np.sort(ids), [[0, 1, 2, 3]] * 2)
  # NaN comes first.
  assert set(ids[1, :2]) == {0, 2}


def test_has_no_gradient():
  def total(scores):
    return jnp.sum(kernels.largest_ids(scores, 2)).astype(jnp.float32)

  np.testing.assert_array_equal(jax.grad(total)(jnp.arange(5.0)), np.zeros(5))


def test_refuses_what_it_cannot_do():
  for count in (0, 6):
    with pytest.raises(
      ValueError, match=rf"count={count}, scores float32\(2, 5\)"
    ):
      kernels.largest_ids(jnp.zeros((2, 5)), count)
  with pytest.raises(ValueError, match="'mosaic_gpu' cannot run: .* a cpu"):
    kernels.largest_ids(jnp.zeros((2, 5)), 2, implementation="mosaic_gpu")
  with pytest.raises(ValueError, match=r"scores bfloat16\(2, 5\)"):
    kernels.largest_ids(jnp.ones((2, 5), jnp.bfloat16), 1)
  with pytest.raises(ValueError, match="scores must be an array, got list"):
    kernels.largest_ids([1.0, 2.0], 1)
