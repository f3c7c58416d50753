"""Radio links: path loss, rates, and the energy of sending bits.

All arrays are NumPy's, float64, and broadcast against each other.
"""

from typing import Any

import numpy as np

from tanbr_jax.wireless.units import (
  check_not_negative,
  check_positive,
  dbm_to_w,
)

# Stated by the paper's settings: thermal noise, path loss, antenna, helpers.
NOISE_W_PER_HZ = float(dbm_to_w(-174))
PATH_LOSS_EXPONENT = 4.0
ANTENNA_CONSTANT = 1.0
HELPER_POWER_W = float(dbm_to_w(38))


def path_gain(
  distance_m: Any,
  *,
  exponent: float = PATH_LOSS_EXPONENT,
  antenna_constant: float = ANTENNA_CONSTANT,
) -> np.ndarray:
  """The mean power gain of a link, `antenna_constant * distance_m^-exponent`.

  Args:
    distance_m: [...] metres.
    exponent: of the path loss.
    antenna_constant: the gain at one metre.

  Raises:
    ValueError: if a distance, the exponent or the constant is not positive.
  """
  distance = check_positive("distance_m", distance_m)
  exponent = check_positive("exponent", exponent)
  return check_positive("antenna_constant", antenna_constant) * (
    distance**-exponent
  )


def uplink_energy_j(
  bits: Any,
  *,
  gain: Any,
  bandwidth_hz: Any,
  noise_w_per_hz: Any = NOISE_W_PER_HZ,
  seconds: Any,
) -> np.ndarray:
  """The least energy that carries so many bits in so many seconds.

  `seconds (N0 B / gain) (2^(bits / (B seconds)) - 1)`: the power that the
  capacity of a Gaussian channel asks for, for the whole time. [R] the paper's
  formula is not public. Convex in the bits, and jointly in bits and seconds.

  Args:
    bits: [...] at least 0.
    gain: [...] power gain of the link, fading included.
    bandwidth_hz: [...] of the link.
    noise_w_per_hz: [...] noise density.
    seconds: [...] that the transmission may take.

  Returns:
    [...] joules: 0 for no bits; inf where there is no time, or where the energy
    is beyond float64.

  Raises:
    ValueError: if bits are negative, a gain, a bandwidth or a noise is not
      positive, or the seconds are NaN.
  """
  bits = check_not_negative("bits", bits)
  gain = check_positive("gain", gain)
  bandwidth = check_positive("bandwidth_hz", bandwidth_hz)
  noise = check_positive("noise_w_per_hz", noise_w_per_hz)
  seconds = np.asarray(seconds, np.float64)
  if np.isnan(seconds).any():
    raise ValueError(f"seconds must be numbers, got seconds={seconds}")
  has_time = seconds > 0
  time = np.where(has_time, seconds, 1.0)
  with np.errstate(over="ignore"):
    # expm1 keeps what little energy few bits take.
    growth = np.expm1(bits / (bandwidth * time) * np.log(2))
    energy = time * (noise * bandwidth / gain) * growth
  return np.where(bits == 0, 0.0, np.where(has_time, energy, np.inf))


def rate_bits_per_s(
  *,
  power_w: Any,
  gain: Any,
  bandwidth_hz: Any,
  noise_w_per_hz: Any = NOISE_W_PER_HZ,
) -> np.ndarray:
  """The capacity `B log2(1 + power gain / (N0 B))` of a link.

  Args:
    power_w: [...] that is sent.
    gain: [...] power gain of the link.
    bandwidth_hz: [...] of the link.
    noise_w_per_hz: [...] noise density.

  Raises:
    ValueError: if an argument is not positive.
  """
  power = check_positive("power_w", power_w)
  bandwidth = check_positive("bandwidth_hz", bandwidth_hz)
  noise = check_positive("noise_w_per_hz", noise_w_per_hz) * bandwidth
  snr = power * check_positive("gain", gain) / noise
  return bandwidth * np.log1p(snr) / np.log(2)
