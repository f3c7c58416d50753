import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, NonNegative, Range

UNIT = Annotated[float, Range(0, 1, "(]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record(ranges.Checked):
  count: Count = 1
  noise: NonNegative = 0.5
  share: UNIT | None = None
  sizes: tuple[Count, ...] = (1, 2)
  text: str = ""
  free: float = math.nan


@ranges.checked
def function(first, *, share: UNIT = 2.0, free=None):
  return first, share, free


@pytest.mark.parametrize(
  "values",
  [
    {},
    {"count": 2**31 - 1, "noise": 0, "share": 1},
    {"count": np.int64(3), "noise": np.float64(1e9), "share": np.float32(1)},
    {"count": jnp.int32(3), "noise": jnp.bfloat16(2), "share": 1e-30},
    {"sizes": [3, 4]},
    {"sizes": ()},
    {"sizes": np.asarray([3, 4])},
  ],
)
def test_what_is_inside_is_taken(values):
  made = Record(**values)
  assert all(getattr(made, name) is value for name, value in values.items())


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("count", 0, "count must be at least 1, got count=0"),
    ("count", -1, "count must be at least 1, got count=-1"),
    ("count", 2**31, r"count must be in \[1, 2147483648\), got .*=2147483648"),
    ("count", 10**400, "count must be an integer at least 1, got count=1000"),
    ("count", 1.0, "count must be an integer at least 1, got count=1.0"),
    ("count", True, "count must be an integer at least 1, got count=True"),
    ("count", math.nan, "count must be an integer at least 1, got count=nan"),
    ("noise", -0.1, "noise must be at least 0, got noise=-0.1"),
    ("noise", math.nan, "noise must be finite and at least 0, got noise=nan"),
    ("noise", math.inf, "noise must be finite and at least 0, got noise=inf"),
    ("noise", 1e39, "noise must be finite and at least 0, got noise=1e"),
    ("noise", "1", "noise must be a number at least 0, got noise='1'"),
    ("noise", [[1], [1, 2]], "noise must be a number at least 0, got noise="),
    ("share", 0.0, r"share must be in \(0, 1\], got share=0.0"),
    ("share", 1e-60, r"share must be in \(0, 1\], got share=1e-60"),
    ("share", 1.001, r"share must be in \(0, 1\], got share=1.001"),
    ("sizes", (1, 0), r"sizes must be at least 1, got sizes=\(1, 0\)"),
    ("sizes", ["1"], r"sizes must be an integer at least 1, got sizes=\['1'\]"),
  ],
)
def test_what_is_outside_is_an_error_of_one_line(field, value, message):
  with pytest.raises(ValueError, match=message) as error:
    Record(**{field: value})
  assert "\n" not in str(error.value)


def test_arguments_are_checked_before_the_call():
  # A default is the function's own affair, as is what has no range.
  assert function(3, free=math.nan)[:2] == (3, 2.0)
  with pytest.raises(ValueError, match=r"share must be in \(0, 1\], got .*=2"):
    function(3, share=2)
  shares = jax.vmap(lambda share: function(0, share=share)[1])(jnp.arange(3.0))
  np.testing.assert_array_equal(shares, [0, 1, 2])  # traced values pass
