"""How an operation picks one of its implementations by name."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def select(implementation: str | None, available: Mapping[str, T]) -> T:
  """Returns the implementation of that name; None is the first one.

  Args:
    implementation: a key of `available`, or None for the default.
    available: name -> implementation, the preferred one first.

  Raises:
    ValueError: if there is no implementation of that name.
  """
  if implementation is None:
    return next(iter(available.values()))
  if implementation not in available:
    raise ValueError(
      "implementation must be None or one of "
      f"{sorted(available)}, got implementation={implementation!r}"
    )
  return available[implementation]
