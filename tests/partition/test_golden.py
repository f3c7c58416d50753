"""Golden traces: the trees that a fixed sequence of splits gives.

They pin the order of splits, ties and children, on which stored runs depend.
After a change that is meant, write them anew from the repository's root with

  python tests/partition/test_golden.py

and say in the commit why they changed.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.partition import box, simplex

PATH = pathlib.Path(__file__).parent.parent / "golden" / "partition.json"
PARTITIONS = {
  "simplex": simplex(num_experts=3, capacity=16),
  "box": box(num_experts=3, capacity=16),
  "box_budget_2": box(num_experts=3, capacity=16, budget=2),
}
# More than the seven splits that there is room for: some name an inner node or
# a dropped cell and are ignored, and the last ones find the trees full.
SPLITS = [0, 1, 2, 3, 2, 5, 6, 4, 8, 9, 1, 10, 12]
POINTS = [[0.2, 0.3, 0.5], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.6, 0.25, 0.15]]
FIELDS = ["parents", "children", "depths", "is_leaf", "num_nodes", "full"]


def trace(partition):
  """The final tree and where the points are, as plain lists."""

  @jax.jit
  def run(splits, points):
    step = lambda tree, node: (partition.split(tree, node), None)  # noqa: E731
    tree, _ = jax.lax.scan(step, partition.init(), splits)
    return tree, jax.vmap(partition.locate, (None, 0))(tree, points)

  tree, located = run(jnp.array(SPLITS), jnp.array(POINTS))
  found = {name: getattr(tree, name).tolist() for name in FIELDS}
  rounded = np.round(np.asarray(tree.representatives, np.float64), 6)
  return found | dict(
    representatives=rounded.tolist(), located=located.tolist()
  )


@pytest.mark.parametrize("name", PARTITIONS)
def test_golden_trace(name):
  golden, found = json.loads(PATH.read_text())[name], trace(PARTITIONS[name])
  # Stored with six digits; the rest has to be equal.
  np.testing.assert_allclose(
    found.pop("representatives"), golden.pop("representatives"), atol=2e-6
  )
  assert found == golden


if __name__ == "__main__":
  traces = {name: trace(made) for name, made in PARTITIONS.items()}
  lines = [
    f"  {json.dumps(name)}: {json.dumps(found)}"
    for name, found in traces.items()
  ]
  PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")
