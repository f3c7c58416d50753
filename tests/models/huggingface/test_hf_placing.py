"""The way to an accelerator, taken on a CPU."""

import jax
import ml_dtypes
import numpy as np
import pytest

from tanbr_jax.models.huggingface import placing
from tanbr_jax.models.huggingface.placing import Source

RNG = np.random.default_rng(0)


def draw(*shape):
  return RNG.normal(size=shape).astype(ml_dtypes.bfloat16)


WHOLE, FUSED, ROWS = draw(3, 5, 4), draw(3, 10, 4), draw(7)
COLUMNS = [draw(2, 5), draw(3, 5)]
CASES = {
  # Experts one by one, each the other way.
  "experts": (
    (3, 4, 5),
    [Source((e,), WHOLE[e], True) for e in range(3)],
    WHOLE.swapaxes(1, 2),
  ),
  # Half of the rows of a stack, the other way; every second column.
  "half": (
    (3, 4, 5),
    [Source((), FUSED[:, 5:], True)],
    FUSED[:, 5:].swapaxes(1, 2),
  ),
  "strided": (
    (3, 10, 2),
    [Source((), FUSED[..., 1::2], False)],
    FUSED[..., 1::2],
  ),
  # Matrices side by side, a vector in two parts.
  "columns": (
    (5, 5),
    [
      Source((slice(None), slice(0, 2)), COLUMNS[0], True),
      Source((slice(None), slice(2, 5)), COLUMNS[1], True),
    ],
    np.concatenate([one.T for one in COLUMNS], axis=1),
  ),
  "vector": (
    (7,),
    [
      Source((slice(0, 3),), ROWS[:3], False),
      Source((slice(3, 7),), ROWS[3:], False),
    ],
    ROWS,
  ),
  "one row": (
    (2, 3),
    [Source((1,), ROWS[:3], False), Source((0,), ROWS[3:6], False)],
    np.stack((ROWS[3:6], ROWS[:3])),
  ),
}


@pytest.mark.parametrize("way", ["_part_by_part", "_on_host"])
@pytest.mark.parametrize("name", CASES)
def test_parts_come_where_they_belong(name, way):
  shape, sources, expected = CASES[name]
  for dtype in (np.float32, ml_dtypes.bfloat16):
    leaf = jax.ShapeDtypeStruct(shape, dtype)
    found = getattr(placing, way)(leaf, sources, jax.devices()[0])
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected.astype(dtype))
