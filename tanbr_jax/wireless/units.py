"""Decibels and linear units, and the checks of physical quantities.

Every name of this room ends in its unit: hz, w, j, s, bits, m, dbm, db.
"""

from typing import Any

import numpy as np


def dbm_to_w(dbm: Any) -> Any:
  """Watts of a power in dBm, decibels over a milliwatt; 30 dBm is 1 W."""
  return 10.0 ** (np.asarray(dbm, np.float64) / 10 - 3)


def w_to_dbm(watts: Any) -> Any:
  """The power in dBm of watts.

  Raises:
    ValueError: if a power is not positive.
  """
  return 10 * np.log10(check_positive("watts", watts)) + 30


def db_to_ratio(db: Any) -> Any:
  """The ratio of powers of decibels; 3 dB is 1.995."""
  return 10.0 ** (np.asarray(db, np.float64) / 10)


def ratio_to_db(ratio: Any) -> Any:
  """Decibels of a ratio of powers.

  Raises:
    ValueError: if a ratio is not positive.
  """
  return 10 * np.log10(check_positive("ratio", ratio))


def check_positive(name: str, value: Any) -> np.ndarray:
  """Returns a float64 array of values that are positive and finite.

  Args:
    name: of the quantity, unit included.
    value: a number or an array.

  Raises:
    ValueError: with the first value that is not.
  """
  array = np.asarray(value, np.float64)
  return _checked(name, array, (array > 0) & np.isfinite(array), "positive")


def check_not_negative(name: str, value: Any) -> np.ndarray:
  """Returns a float64 array of values that are at least 0 and finite.

  Raises:
    ValueError: with the first value that is not.
  """
  array = np.asarray(value, np.float64)
  return _checked(name, array, (array >= 0) & np.isfinite(array), "at least 0")


def _checked(
  name: str, array: np.ndarray, is_good: np.ndarray, wanted: str
) -> np.ndarray:
  if not is_good.all():
    first = float(array[~is_good].flat[0])
    raise ValueError(f"{name} must be {wanted} and finite, got {name}={first}")
  return array
