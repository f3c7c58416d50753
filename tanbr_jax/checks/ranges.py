"""Ranges of numbers, declared beside the field or the argument that has one.

  @dataclasses.dataclass(frozen=True)
  class Settings(ranges.Checked):
    num_rounds: Count
    noise: NonNegative = 0.05

  @ranges.checked
  def drift(*, rate: Annotated[float, Range(0, 1, "(]")] = 0.002): ...

A number outside of its range is an error of one line before anything else is
done. Only what is annotated is checked.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])
MAX_INT = 2**31 - 1  # of an int32, which sizes and seeds become


@dataclasses.dataclass(frozen=True)
class Range:
  """An interval, as metadata of `Annotated`.

  A range of `int` holds integers alone. Other numbers are compared as float32,
  as which they are used: what rounds to an excluded end is outside.

  Attributes:
    low: its lower end.
    high: its upper end.
    ends: "[]", "(]", "[)" or "()": which of the ends belong to it.
  """

  low: float
  high: float = math.inf
  ends: str = "[)"

  def __repr__(self) -> str:
    return f"{self.ends[0]}{self.low:.10g}, {self.high:.10g}{self.ends[1]}"

  def check(self, name: str, value: Any, *, is_integer: bool = False) -> None:
    """Raises a ValueError unless a number, or every one of a list, is inside.

    Args:
      name: of the number, for the error.
      value: a number, or a list or an array of numbers; a traced one passes.
      is_integer: whether it has to be an integer.
    """
    if isinstance(value, jax.core.Tracer):
      return
    numbers = _numbers(value, is_integer)
    if numbers is None:
      wanted = "an integer " if is_integer else "a number "
      wanted += self._words()
    elif self._holds(numbers):
      return
    elif not np.all(np.isfinite(numbers)):
      wanted = f"finite and {self._words()}"
    else:
      wanted = self._words() if np.all(numbers < self.high) else f"in {self!r}"
    got = " ".join(repr(value).split())
    raise ValueError(f"{name} must be {wanted}, got {name}={got}")

  def _holds(self, numbers: np.ndarray) -> bool:
    low, high = numbers.dtype.type(self.low), numbers.dtype.type(self.high)
    above = numbers >= low if self.ends[0] == "[" else numbers > low
    below = numbers <= high if self.ends[1] == "]" else numbers < high
    return bool(np.all(above & below))  # NaN is in no range

  def _words(self) -> str:
    if self.low == self.high:
      return f"{self.low:.10g}"
    if self.high not in (math.inf, MAX_INT + 1):
      return f"in {self!r}"
    if self.ends[0] == "[":
      return f"at least {self.low:g}"
    return "positive" if self.low == 0 else f"above {self.low:g}"


_Number = float | jax.Array
Count = Annotated[int, Range(1, MAX_INT + 1)]
Whole = Annotated[int, Range(0, MAX_INT + 1)]
AtLeastTwo = Annotated[int, Range(2, MAX_INT + 1)]
Positive = Annotated[_Number, Range(0, ends="()")]
# Positive or infinite, where infinity switches something off.
PositiveOrInf = Annotated[_Number, Range(0, ends="(]")]
NonNegative = Annotated[_Number, Range(0)]
Share = Annotated[_Number, Range(0, 1, "[]")]
Chance = Annotated[_Number, Range(0, 1, "(]")]
Decay = Annotated[_Number, Range(0, 1, "[)")]
Inner = Annotated[_Number, Range(0, 1, "()")]
Real = Annotated[_Number, Range(-math.inf, math.inf, "()")]


class Checked:
  """A dataclass whose numbers are checked when it is made."""

  def __post_init__(self) -> None:
    """Raises a ValueError for the first number out of its range."""
    values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    check_fields(type(self), values)


def checked(function: Function) -> Function:
  """A function whose keyword arguments are checked before it is called."""

  @functools.wraps(function)
  def call(*args: Any, **kwargs: Any) -> Any:
    check_fields(function, kwargs)
    return function(*args, **kwargs)

  return call


def check_fields(owner: Any, values: Mapping[str, Any]) -> None:
  """Checks values against the ranges that a class or a function declares.

  Args:
    owner: a class or a function.
    values: by the names of its fields or arguments; None passes.

  Raises:
    ValueError: a value is out of its range.
  """
  declared = _declared(owner)
  for name, value in values.items():
    if name in declared and value is not None:
      one, is_integer = declared[name]
      one.check(name, value, is_integer=is_integer)


def find(annotation: Any) -> tuple[Range, bool] | None:
  """The range inside of an annotation, and whether it is one of integers.

  It may lie in a union or in the items of a sequence.
  """
  arguments = typing.get_args(annotation)
  if typing.get_origin(annotation) is Annotated:
    for item in arguments[1:]:
      if isinstance(item, Range):
        return item, arguments[0] is int
  return next(filter(None, map(find, arguments)), None)


@functools.cache
def _declared(owner: Any) -> dict[str, tuple[Range, bool]]:
  hints = typing.get_type_hints(owner, include_extras=True)
  found = {name: find(annotation) for name, annotation in hints.items()}
  return {name: one for name, one in found.items() if one is not None}


def _numbers(value: Any, is_integer: bool) -> np.ndarray | None:
  """Numbers as float64 or float32; None for what is none or no integer."""
  try:
    array = np.asarray(value)
  except ValueError:  # lists of several lengths
    return None
  if array.dtype.kind in "iu" or not array.size:
    return array.astype(np.float64 if is_integer else np.float32)
  if is_integer or not jnp.issubdtype(array.dtype, jnp.floating):
    return None
  with np.errstate(over="ignore"):
    return array.astype(np.float32)
