"""The path through the simplex against hand-made places."""

import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.bandits.arms.simplex_path import simplex_path, walk


def test_default_path_passes_the_centre_between_experts():
  path = simplex_path(3)
  third = np.full(3, 1 / 3)
  # Four segments of the same length: the way points are at quarters.
  for place, wanted in (
    (0.0, [1, 0, 0]),
    (0.125, (np.eye(3)[0] + third) / 2),
    (0.25, third),
    (0.5, [0, 1, 0]),
    (0.75, third),
    (1.0, [0, 0, 1]),
  ):
    np.testing.assert_allclose(
      walk(path, jnp.float32(place)), wanted, atol=1e-6
    )


def test_speed_is_constant_on_a_path_of_unequal_segments():
  path = simplex_path(2, [[1, 0], [0.75, 0.25], [0, 1]])
  for place in (0.1, 0.25, 0.6):
    wanted = [1 - place, place]
    np.testing.assert_allclose(
      walk(path, jnp.float32(place)), wanted, atol=1e-6
    )


@pytest.mark.parametrize(
  "points, words",
  [
    ([[1, 0]], "P >= 2"),
    ([[1, 0, 0], [0, 1, 0]], "num_experts=2"),
    ([[1, 0], [0.5, 0.6]], "sum to 1"),
    ([[1, 0], [1, 0], [0, 1]], "equal points 0 and 1"),
  ],
)
def test_bad_input(points, words):
  with pytest.raises(ValueError, match=words):
    simplex_path(2, points)
