import jax.numpy as jnp
import pytest

from experiments.kernels import agreement


class Fixed:
  """A chain whose output is given."""

  def __init__(self, *values):
    self.values = jnp.asarray(values, jnp.bfloat16)

  def first(self):
    return self.values


def test_distance():
  # 3-4-5: the difference has norm 1, the reference norm 5.
  found = agreement.distance(jnp.array([3.0, 5.0]), jnp.array([3.0, 4.0]))
  assert float(found) == pytest.approx(0.2)


def test_rows_that_compute_something_else_are_told():
  chains = {
    "routed": Fixed(3.0, 4.0),
    "routed/xla": Fixed(3.015625, 4.0),
    "routed/mosaic_gpu": Fixed(3.0, 5.0),
    "shipped/64": Fixed(float("nan"), 4.0),
    # Neither computes the routed block.
    "merged": Fixed(9.0, 9.0),
    "part/route": Fixed(9.0, 9.0),
  }
  found = agreement.disagreements(chains)
  assert set(found) == {"routed/mosaic_gpu", "shipped/64"}
  text = str(found["routed/mosaic_gpu"])
  assert text.startswith("differs from routed/xla by 0.2")


def test_ours_is_the_reference_where_the_plain_one_is_not_timed():
  chains = {"routed": Fixed(3.0, 4.0), "shipped/64": Fixed(3.0, 5.0)}
  found = agreement.disagreements(chains)
  assert "differs from routed by" in str(found["shipped/64"])
  assert agreement.disagreements({"shipped/64": Fixed(1.0)}) == {}
