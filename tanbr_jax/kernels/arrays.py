"""A check that every public function begins with."""

from typing import Any

import jax
import numpy as np

_LONGEST = 60  # letters of a value in an error


def check_is_array(**arrays: Any) -> None:
  """Refuses lists, numbers and whatever else is no array.

  Raises:
    ValueError: with the first of them and its name.
  """
  for name, array in arrays.items():
    if not isinstance(array, jax.Array | np.ndarray):
      value = repr(array).replace("\n", " ")
      if len(value) > _LONGEST:
        value = value[:_LONGEST] + "..."
      raise ValueError(
        f"{name} must be an array, got {type(array).__name__} {value}"
      )
