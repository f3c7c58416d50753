import numpy as np
import pytest

from tanbr_jax.plots import ternary

PANEL = ternary.TernaryPanel(
  title="tree",
  cells=[np.eye(3), np.asarray([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1.0]])],
  visits=np.asarray([0, 7]),
  played=np.full((4, 3), 1 / 3),
  optimum=np.asarray([0.5, 0.5, 0]),
)


def test_weights_are_distances_from_the_opposite_sides():
  weights = np.random.default_rng(0).dirichlet(np.ones(3), 50)
  points = ternary.to_plane(weights)
  a, b, c = ternary.to_plane(np.eye(3))
  height = np.sqrt(3) / 2
  for i, (p, q) in enumerate(((b, c), (c, a), (a, b))):
    arms, side = points - p, q - p
    # Sides have length 1: the cross product is the distance.
    distance = side[0] * arms[:, 1] - side[1] * arms[:, 0]
    np.testing.assert_allclose(distance / height, weights[:, i], atol=1e-12)


def test_cells_are_coloured_by_visits_and_the_optimum_is_marked():
  figure = ternary.ternary_tree(
    [[PANEL, PANEL._replace(zoom=5.0)]], played_label="played"
  )
  whole, enlarged = figure.axes[:2]
  (cells,) = whole.collections
  cells.update_scalarmappable()
  white, blue = cells.get_facecolor()[:, :3]
  assert white == pytest.approx(1.0)
  assert blue[2] > blue[0]
  (best,) = [x for x in whole.lines if x.get_label() == "best weights"]
  # Half-way between the corners (0, 0) and (1, 0).
  np.testing.assert_allclose(best.get_xydata(), [[0.5, 0.0]])
  names = {text.get_text() for text in whole.texts}
  assert names >= {"expert 1", "expert 2", "expert 3"}
  np.testing.assert_allclose(enlarged.get_xlim(), (0.4, 0.6))
