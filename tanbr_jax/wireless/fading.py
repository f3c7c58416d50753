"""Distributions of a link's power gain by fading, all of mean 1.

`gamma` is Nakagami's (shape 2 in the paper's settings), `rayleigh` its shape 1,
`rician` has a direct path. What a policy needs of them: draws, the density's
behaviour at 0, and E[1/h], which is infinite for Rayleigh and for Rician power:
there only truncated inversion has a finite mean, at the price of outages.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import integrate, special

from tanbr_jax.wireless.units import check_not_negative, check_positive


@dataclasses.dataclass(frozen=True)
class Fading:
  """A distribution of the power gain h, E[h] = 1.

  Attributes:
    shape: of Gamma power, positive; None for Rician.
    direct_ratio: of Rician power: the direct path's power over that of the
      scattered ones, at least 0; None for Gamma.
  """

  shape: float | None = None
  direct_ratio: float | None = None

  def __post_init__(self) -> None:
    """Raises a ValueError unless there is one parameter in its range."""
    if (self.shape is None) == (self.direct_ratio is None):
      raise ValueError(
        "give shape or direct_ratio, got "
        f"shape={self.shape}, direct_ratio={self.direct_ratio}"
      )
    if self.shape is not None:
      check_positive("shape", self.shape)
    else:
      check_not_negative("direct_ratio", self.direct_ratio)

  def draw(self, rng: np.random.Generator, size: Any = None) -> np.ndarray:
    """Draws independent gains of the size."""
    if self.shape is not None:
      return np.asarray(rng.gamma(self.shape, 1 / self.shape, size))
    # Twice the power over the scattered part is a non-central chi-square.
    ratio = self.direct_ratio
    draws = rng.noncentral_chisquare(2, 2 * ratio, size)
    return np.asarray(draws / (2 * (1 + ratio)))

  def quantile(self, probability: Any) -> np.ndarray:
    """The gain that is not reached with the probability."""
    if self.shape is not None:
      return special.gammaincinv(self.shape, probability) / self.shape
    ratio = self.direct_ratio
    return special.chndtrix(probability, 2, 2 * ratio) / (2 * (1 + ratio))

  def density(self, gain: Any) -> np.ndarray:
    """The probability density at a gain."""
    if self.shape is not None:
      x = self.shape * np.asarray(gain)
      logarithm = special.xlogy(self.shape - 1, x) - x
      return self.shape * np.exp(logarithm - special.gammaln(self.shape))
    # i0e(x) is I_0(x) e^-x: the exponents are joined, so that none overflows.
    ratio, root = self.direct_ratio, np.sqrt(gain)
    spread, direct = np.sqrt(1 + ratio), np.sqrt(ratio)
    decay = np.exp(-((spread * root - direct) ** 2))
    return (1 + ratio) * decay * special.i0e(2 * spread * direct * root)

  def mean_inverse(self, *, outage_probability: float = 0.0) -> float:
    """E[1/h], of the gains above the outage's.

    Args:
      outage_probability: of truncated inversion: below this quantile of h
        nothing is sent, and nothing is counted; in [0, 1).

    Returns:
      E[1/h; h >= h_0], with h_0 the quantile. Closed form for Gamma.

    Raises:
      ValueError: if the mean is infinite: no outage with Gamma power of shape
        at most 1 (Rayleigh is 1) or Rician power, whose density at 0 is
        positive; or the probability is out of range.
    """
    if not 0 <= outage_probability < 1:
      raise ValueError(
        "outage_probability must be in [0, 1), got "
        f"outage_probability={outage_probability}"
      )
    is_finite = self.shape is not None and self.shape > 1
    if outage_probability == 0 and not is_finite:
      raise ValueError(
        "E[1/h] is infinite for this fading: plain inversion is refused, give "
        f"an outage_probability > 0, got shape={self.shape}, "
        f"direct_ratio={self.direct_ratio}"
      )
    least = self.quantile(outage_probability) if outage_probability else 0.0
    if is_finite:
      above = special.gammaincc(self.shape - 1, self.shape * least)
      return float(self.shape / (self.shape - 1) * above)
    if self.shape == 1 or self.direct_ratio == 0:
      return float(special.exp1(least))
    # In log h, where the density falls smoothly at both ends.
    integrand = lambda x: self.density(np.exp(x))  # noqa: E731
    end = np.log(self.quantile(1 - 1e-15)) + 1
    return float(integrate.quad(integrand, np.log(least), end, epsrel=1e-10)[0])

  def levels(
    self, count: int, *, outage_probability: float = 0.0
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Discrete gains that stand for the distribution in a programme.

    The gains above the outage's quantile are cut into bins of equal
    probability; a bin's level is the harmonic mean, so that E[1/h] is kept.
    The bin below it is the first one, whose level is its upper end: a sender
    that has to invert there is charged for that gain.

    Args:
      count: of the bins above the outage's.
      outage_probability: as for `mean_inverse`.

    Returns:
      Gains [H] in ascending order, their probabilities [H], and which of them
      are an outage, [H] bool; H is `count`, and one more with an outage.

    Raises:
      ValueError: as `mean_inverse`, or if the count is below 1.
    """
    if count < 1:
      raise ValueError(f"count must be at least 1, got count={count}")
    low = outage_probability
    edges = np.linspace(low, 1.0, count + 1)
    tail = [self.mean_inverse(outage_probability=low)]
    tail += [self._inverse_above(edge) for edge in edges[1:-1]] + [0.0]
    share = (1 - low) / count
    gains = share / -np.diff(tail)
    chances = np.full(count, share)
    is_outage = np.zeros(count, bool)
    if low:
      gains = np.concatenate([[float(self.quantile(low))], gains])
      chances = np.concatenate([[low], chances])
      is_outage = np.concatenate([[True], is_outage])
    return gains, chances, is_outage

  def _inverse_above(self, probability: float) -> float:
    return self.mean_inverse(outage_probability=float(probability))


def gamma(shape: float = 2.0) -> Fading:
  """Gamma power of mean 1; its E[1/h] is shape / (shape - 1) above shape 1."""
  return Fading(shape=shape)


def rayleigh() -> Fading:
  """Exponential power of mean 1; E[1/h] is infinite."""
  return Fading(shape=1.0)


def rician(direct_ratio: float) -> Fading:
  """Rician power of mean 1; E[1/h] is infinite, as the density at 0 is not 0.

  Args:
    direct_ratio: the direct path's power over the scattered paths' (K-factor).
  """
  return Fading(direct_ratio=direct_ratio)


def gauss_markov(
  fading: Fading,
  rng: np.random.Generator,
  *,
  num_slots: int,
  size: tuple[int, ...] = (),
  correlation: float = 0.9,
) -> np.ndarray:
  """Gains over slots whose scattered amplitudes are Gauss-Markov.

  Each of the complex amplitudes g follows g' = r g + sqrt(1 - r^2) w, so that
  every slot has the distribution of `fading`. Gamma power of an integer shape m
  is the mean power of m amplitudes.

  Args:
    fading: Rician, or Gamma of an integer shape.
    rng: consumed.
    num_slots: S.
    size: [...] of independent links.
    correlation: r in [0, 1]; 0 is i.i.d., 1 is slow.

  Returns:
    [S, ...] gains.

  Raises:
    ValueError: if the correlation is out of range or the shape no integer.
  """
  if not 0 <= correlation <= 1:
    raise ValueError(
      f"correlation must be in [0, 1], got correlation={correlation}"
    )
  branches = 1
  if fading.shape is not None:
    branches = round(fading.shape)
    if branches != fading.shape or branches < 1:
      raise ValueError(
        f"gauss_markov needs an integer shape, got shape={fading.shape}"
      )
  ratio = fading.direct_ratio or 0.0
  # Real and imaginary parts of variance 1/2 each.
  shape = (*size, branches, 2)
  amplitude = rng.normal(scale=np.sqrt(0.5), size=shape)
  gains = np.empty((num_slots, *size))
  for slot in range(num_slots):
    if slot:
      noise = rng.normal(scale=np.sqrt(0.5), size=shape)
      amplitude = correlation * amplitude
      amplitude = amplitude + np.sqrt(1 - correlation**2) * noise
    total = amplitude * np.sqrt(1 / (1 + ratio))
    total[..., 0] += np.sqrt(ratio / (1 + ratio))
    gains[slot] = (total**2).sum(axis=-1).mean(axis=-1)
  return gains
