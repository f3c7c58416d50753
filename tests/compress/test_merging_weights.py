import numpy as np
import pytest

from tanbr_jax.compress.merging import weights


def test_shares_are_of_the_own_group():
  found = weights.group_weights([1, 3, 0, 2, 0], np.array([0, 0, 1, 0, 1]))
  np.testing.assert_allclose(
    found, [[1 / 6, 1 / 2, 0, 1 / 3, 0], [0, 0, 1 / 2, 0, 1 / 2]]
  )


@pytest.mark.parametrize("score", [-1.0, np.nan, np.inf])
def test_scores_that_are_no_weights_are_refused(score):
  with pytest.raises(ValueError, match="for expert 1"):
    weights.group_weights([1, score], np.zeros(2, int))


def test_orthogonal_vectors_bargain_by_their_lengths():
  # d_i a_i = 1 / a_i.
  found = weights.nash_weights(np.diag([1.0, 4.0, 100.0]))
  np.testing.assert_allclose(found, [1, 1 / 2, 1 / 10], rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_nash_condition_holds(scale):
  vectors = np.random.default_rng(0).normal(size=(6, 9)) * np.arange(1, 10)
  vectors[1] = -0.9 * vectors[0] + 0.1 * vectors[1]  # nearly opposed
  gram = scale * vectors @ vectors.T
  found = weights.nash_weights(gram)
  assert np.all(found > 0)
  np.testing.assert_allclose(found * (gram @ found), 1, rtol=1e-8)


def test_equal_vectors_have_equal_shares():
  found = weights.nash_weights(np.full((3, 3), 2.0))
  # 2 * 3 a = 1 / a.
  np.testing.assert_allclose(found, 6**-0.5, rtol=1e-9)


@pytest.mark.parametrize(
  "gram",
  [[[1.0, -1.0], [-1.0, 1.0]], [[0.0, 0], [0, 0]], [[np.nan, 0], [0, 1.0]]],
)
def test_vectors_that_cancel_have_no_bargain(gram):
  with pytest.raises(ValueError, match="Nash weights") as error:
    weights.nash_weights(np.array(gram))
  assert "\n" not in str(error.value)
