import dataclasses

import jax
import numpy as np
import pytest

from configs.regret import ternary as ternary_config
from experiments import ternary
from tanbr_jax import partition

pytestmark = pytest.mark.slow


def make_config():
  config = ternary_config.get_config()
  config.bandits, config.snapshots, config.num_points = "small", (4, 8), 3
  config.methods.small = {
    "bandit": "tanbr",
    "capacity": 15,
    "num_ascent_steps": 0,
    "num_fresh": 0,
    "num_fourier": 4,
  }
  return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("ternary")
  ternary.run(make_config(), workdir=folder)
  return folder


def test_visits_are_all_rounds_so_far(folder):
  with np.load(folder / "trees.npz") as arrays:
    for count in (4, 8):
      visits = arrays[f"small/{count}:visits"]
      assert visits.sum() == count
      assert arrays[f"small/{count}:cells"].shape == (len(visits), 6, 3)
      assert arrays[f"small/{count}:played"].shape == (3, 3)
    # The mix is fixed, so that the best weights stay.
    np.testing.assert_array_equal(
      arrays["small/4:optimum"], arrays["small/8:optimum"]
    )
    assert len(arrays["small/8:visits"]) > 1


def test_the_figure_is_drawn_again_from_the_files(folder):
  (folder / "ternary.png").unlink()
  ternary.draw(folder)
  assert (folder / "ternary.png").exists()


def test_a_tree_is_found_wherever_it_is():
  tree = partition.simplex(num_experts=3, capacity=3).init()
  found = ternary.find_tree({"a": (1, [tree]), "b": jax.numpy.ones(2)}, "x")
  assert isinstance(found, partition.SimplexTree)
  with pytest.raises(ValueError, match="method 'x' has no tree"):
    ternary.find_tree((1, 2), "x")
  forest = dataclasses.replace(tree, num_nodes=jax.numpy.int32(2))
  with pytest.raises(ValueError, match="method 'x' has 2 trees"):
    ternary.find_tree(forest, "x")


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("num_experts", 4, "num_experts must be .*3.*, got num_experts=4"),
    ("snapshots", (8, 4), r"rising round counts, got \[8, 4\]"),
    ("family", "cubic", "unknown family 'cubic'"),
  ],
)
def test_bad_values(field, value, message):
  config = make_config()
  config[field] = value
  with pytest.raises(ValueError, match=message):
    ternary.read(config)
