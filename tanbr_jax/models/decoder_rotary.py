"""Rotary positions, and the ways to stretch them to longer sequences.

Letters: B batch, S sequence, W a head's width, P the part of it that is turned.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Positive

# Frequencies [P / 2], and what the cosines and sines are multiplied with.
Rates = tuple[np.ndarray | jax.Array, float | jax.Array]


def _rates(theta: float | jax.Array, dim: int) -> np.ndarray | jax.Array:
  """[P / 2]: theta^(-2 i / P), Su et al., RoFormer (2021), equation 15."""
  exponent = -np.arange(0, dim, 2) / dim
  if isinstance(theta, jax.Array):
    return theta ** exponent.astype(np.float32)
  return theta**exponent


@dataclasses.dataclass(frozen=True)
class LinearScaling(ranges.Checked):
  """Positions divided by a factor (Chen et al., position interpolation, 2023).

  Attributes:
    factor: how many times longer a sequence may be.
  """

  factor: Positive

  def rates(self, theta: float, dim: int, length: jax.Array) -> Rates:
    """Returns the frequencies [P / 2] and the amplitude."""
    del length
    return _rates(theta, dim) / self.factor, 1.0


@dataclasses.dataclass(frozen=True)
class DynamicScaling(ranges.Checked):
  """A base that grows with the sequence ("dynamic NTK").

  Attributes:
    factor: how fast it grows.
    context: the longest sequence of the original base.
  """

  factor: Positive
  context: Count

  def rates(self, theta: float, dim: int, length: jax.Array) -> Rates:
    """Returns the frequencies [P / 2] and the amplitude."""
    longest = jnp.maximum(length, self.context).astype(jnp.float32)
    stretch = self.factor * longest / self.context - (self.factor - 1)
    return _rates(theta * stretch ** (dim / (dim - 2)), dim), 1.0


@dataclasses.dataclass(frozen=True)
class Llama3Scaling(ranges.Checked):
  """Long waves divided by a factor, short ones kept (Llama 3.1, 2024).

  Attributes:
    factor: by which the waves longer than `context / low` are stretched.
    low: turns within the context below which a wave is long.
    high: turns within the context above which a wave is short.
    context: the longest sequence of the original frequencies.
  """

  factor: Positive
  low: Positive
  high: Positive
  context: Count

  def rates(self, theta: float, dim: int, length: jax.Array) -> Rates:
    """Returns the frequencies [P / 2] and the amplitude."""
    del length
    plain = _rates(theta, dim)
    turns = self.context * plain / (2 * math.pi)
    share = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
    return plain * (share + (1 - share) / self.factor), 1.0


@dataclasses.dataclass(frozen=True)
class YarnScaling(ranges.Checked):
  """Frequencies between kept and divided ones (Peng et al., YaRN, 2023).

  Attributes:
    factor: how many times longer a sequence may be.
    context: the longest sequence of the original frequencies.
    amplitude: of the cosines and sines; None for 0.1 ln(factor) + 1.
    fast: turns within the context above which a frequency is kept.
    slow: turns within the context below which it is divided.
    is_truncated: whether the two ends of the ramp are whole dimensions.
  """

  factor: Positive
  context: Count
  amplitude: Positive | None = None
  fast: Positive = 32.0
  slow: Positive = 1.0
  is_truncated: bool = True

  def rates(self, theta: float, dim: int, length: jax.Array) -> Rates:
    """Returns the frequencies [P / 2] and the amplitude."""
    del length
    low, high = (
      self._place(turns, theta, dim) for turns in (self.fast, self.slow)
    )
    if self.is_truncated:
      low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    # A ramp of no width is a step.
    width = high - low if high != low else 1e-3
    divided = np.clip((np.arange(dim // 2) - low) / width, 0, 1)
    plain = _rates(theta, dim)
    rates = plain * (1 - divided) + plain / self.factor * divided
    if self.amplitude is not None:
      return rates, self.amplitude
    return rates, 0.1 * math.log(max(self.factor, 1.0)) + 1.0

  def _place(self, turns: float, theta: float, dim: int) -> float:
    """The pair of dimensions that turns so often within the context."""
    wave = self.context / (turns * 2 * math.pi)
    return dim * math.log(wave) / (2 * math.log(theta))


@dataclasses.dataclass(frozen=True)
class LongScaling(ranges.Checked):
  """A divisor for each frequency (Ding et al., LongRoPE, 2024).

  Attributes:
    short: P / 2 divisors for sequences of at most `context`.
    long: P / 2 divisors for longer ones.
    context: the longest sequence of the original frequencies.
    short_amplitude: of the cosines and sines of short sequences.
    long_amplitude: of those of long ones.
  """

  short: tuple[Positive, ...]
  long: tuple[Positive, ...]
  context: Count
  short_amplitude: Positive
  long_amplitude: Positive

  def rates(self, theta: float, dim: int, length: jax.Array) -> Rates:
    """Returns the frequencies [P / 2] and the amplitude."""
    plain, is_long = _rates(theta, dim), length > self.context

    def choose(long: np.ndarray, short: np.ndarray) -> jax.Array:
      return jnp.where(is_long, np.float32(long), np.float32(short))

    rates = choose(plain / np.array(self.long), plain / np.array(self.short))
    return rates, choose(self.long_amplitude, self.short_amplitude)


Scaling = (
  LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongScaling
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryOptions(ranges.Checked):
  """How queries and keys are turned by their positions.

  Attributes:
    theta: base of the wavelengths.
    dim: P, how much of each head is turned, from its start; None for all.
    is_interleaved: whether a pair is (2 i, 2 i + 1) and not (i, i + P / 2).
    scaling: how longer sequences are reached; None for not at all.
  """

  theta: Positive = 10_000.0
  dim: AtLeastTwo | None = None
  is_interleaved: bool = False
  scaling: Scaling | None = None

  def __post_init__(self) -> None:
    """Refuses values that cannot be.

    Raises:
      ValueError: if theta is not positive, or dim is odd.
    """
    super().__post_init__()
    if self.dim is not None and self.dim % 2:
      raise ValueError(f"dim must be even and positive, got dim={self.dim}")


def turns(
  positions: jax.Array, head_dim: int, options: RotaryOptions
) -> tuple[jax.Array, jax.Array]:
  """Returns the cosines and sines of all positions' angles.

  Args:
    positions: [B, S] int32.
    head_dim: W.
    options: of the model.

  Returns:
    Two arrays [B, S, P / 2] float32.
  """
  dim = options.dim or head_dim
  rates, amplitude = _rates(options.theta, dim), 1.0
  if options.scaling is not None:
    length = jnp.max(positions, initial=-1) + 1
    rates, amplitude = options.scaling.rates(options.theta, dim, length)
  angles = positions.astype(jnp.float32)[..., None] * jnp.asarray(
    rates, jnp.float32
  ).reshape((1,) * positions.ndim + (-1,))
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  if isinstance(amplitude, float) and amplitude == 1.0:
    return cos, sin
  return cos * amplitude, sin * amplitude


def rotate(
  x: jax.Array, cos: jax.Array, sin: jax.Array, *, is_interleaved: bool = False
) -> jax.Array:
  """Turns each pair of a head's first P values by its angle.

  Pairs are half of P apart, as in the checkpoints of most models, or neighbours
  as in the paper: the same up to a permutation of the columns.

  Args:
    x: [B, S, heads, W].
    cos: [1 or B, S, P / 2] float32.
    sin: as `cos`.
    is_interleaved: whether pairs are neighbours.

  Returns:
    [B, S, heads, W] of x's type.
  """
  cos, sin = cos[:, :, None, :], sin[:, :, None, :]
  half = cos.shape[-1]
  wide, rest = x[..., : 2 * half].astype(jnp.float32), x[..., 2 * half :]
  if is_interleaved:
    first, second = wide[..., 0::2], wide[..., 1::2]
  else:
    first, second = jnp.split(wide, 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  if is_interleaved:
    wide = jnp.stack(turned, axis=-1).reshape(wide.shape)
  else:
    wide = jnp.concatenate(turned, axis=-1)
  if not rest.shape[-1]:
    return wide.astype(x.dtype)
  return jnp.concatenate((wide.astype(x.dtype), rest), axis=-1)
