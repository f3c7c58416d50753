"""Sending in equal slots while the gain changes: a programme for each helper.

Before it sends, the user sees the present gain and not the next ones. With
c(d) the energy of d units in a slot at gain 1,

  V_t(q, h) = min_d c(d) / h + E[V_{t+1}(q - d, h') | h],   V_S(0, h) = 0,

where q units are left and all have to be sent. Gains are levels of a Markov
chain; i.i.d. ones are a chain with equal rows. [R] reconstruction of the
paper's programme, whose formulas are not public.

What is left in the last slot must be inverted, hence the expectation is
infinite where E[1/h] is, see `fading`. Truncated inversion sends nothing below
a least gain: these levels are outages, and their charge at the least gain keeps
the programme from hoping for one.

Letters: S slots, H gain levels, Q units of bits, R realisations.
"""

from typing import NamedTuple

import numpy as np

from tanbr_jax.wireless import channels
from tanbr_jax.wireless.fading import Fading, gauss_markov
from tanbr_jax.wireless.units import check_not_negative, check_positive


class Chain(NamedTuple):
  """Gains as a Markov chain.

  Attributes:
    gains: [H] positive.
    first: [H] probabilities of the first slot's level.
    transition: [H, H] probabilities of the next level, rows sum to one.
    is_outage: [H] bool, levels at which the last slot sends nothing.
  """

  gains: np.ndarray
  first: np.ndarray
  transition: np.ndarray
  is_outage: np.ndarray


def independent(
  fading: Fading, *, num_levels: int = 32, outage_probability: float = 0.0
) -> Chain:
  """An i.i.d. chain that keeps the fading's E[1/h].

  Args:
    fading: of every slot.
    num_levels: H, one more with an outage.
    outage_probability: of truncated inversion, the chance that the last slot
      sends nothing; necessary where E[1/h] is infinite.

  Raises:
    ValueError: as `Fading.levels`.
  """
  gains, chances, is_outage = fading.levels(
    num_levels, outage_probability=outage_probability
  )
  rows = np.tile(chances, (len(gains), 1))
  return Chain(gains, chances, rows, is_outage)


def correlated(
  fading: Fading,
  rng: np.random.Generator,
  *,
  correlation: float,
  num_levels: int = 16,
  num_draws: int = 200_000,
  outage_probability: float = 0.0,
) -> Chain:
  """A chain of Gauss-Markov fading, its transitions counted in draws.

  Args:
    fading: as `gauss_markov` takes it.
    rng: consumed.
    correlation: of the amplitudes of two slots, in [0, 1].
    num_levels: H, one more with an outage.
    num_draws: pairs of slots that are drawn.
    outage_probability: as for `independent`.

  Raises:
    ValueError: as `Fading.levels` and `gauss_markov`.
  """
  chain = independent(
    fading, num_levels=num_levels, outage_probability=outage_probability
  )
  drawn = gauss_markov(
    fading, rng, num_slots=2, size=(num_draws,), correlation=correlation
  )
  now, after = np.searchsorted(_edges(chain, fading), drawn)
  size = len(chain.gains)
  counts = np.bincount(now * size + after, minlength=size**2)
  counts = counts.reshape(size, size).astype(np.float64)
  # A level that was never drawn stays.
  counts += np.eye(size) * (counts.sum(axis=1, keepdims=True) == 0)
  return chain._replace(transition=counts / counts.sum(axis=1, keepdims=True))


def _edges(chain: Chain, fading: Fading) -> np.ndarray:
  """[H - 1] gains between the levels."""
  return fading.quantile(np.cumsum(chain.first)[:-1])


class Programme(NamedTuple):
  """What to send, and what it takes.

  Attributes:
    send: [S, H, Q + 1] int, units to send with so many left.
    energy_j: [S, H, Q + 1], expected from the slot on.
    chain: of the gains.
  """

  send: np.ndarray
  energy_j: np.ndarray
  chain: Chain

  @property
  def expected_j(self) -> np.ndarray:
    """[Q + 1], expected before the first gain is seen."""
    return self.chain.first @ self.energy_j[0]


def slot_energies_j(
  *,
  num_units: int,
  unit_bits: float,
  gain: float,
  bandwidth_hz: float,
  slot_s: float,
  noise_w_per_hz: float = channels.NOISE_W_PER_HZ,
) -> np.ndarray:
  """[Q + 1], the energy of 0 to Q units in one slot where fading is 1.

  Args:
    num_units: Q.
    unit_bits: of a unit.
    gain: of the path.
    bandwidth_hz: of the link.
    slot_s: seconds of a slot.
    noise_w_per_hz: noise density.

  Raises:
    ValueError: as `uplink_energy_j`, or if there is no time.
  """
  check_positive("slot_s", slot_s)
  return channels.uplink_energy_j(
    np.arange(num_units + 1) * unit_bits,
    gain=gain,
    bandwidth_hz=bandwidth_hz,
    noise_w_per_hz=noise_w_per_hz,
    seconds=slot_s,
  )


def solve(slot_j: np.ndarray, chain: Chain, *, num_slots: int) -> Programme:
  """The programme of least expected energy.

  Args:
    slot_j: [Q + 1] energy of 0 to Q units in a slot at gain 1; inf = cannot.
    chain: of the gains.
    num_slots: S.

  Raises:
    ValueError: an array has another shape or a value that is not allowed.
  """
  _check(slot_j, chain, num_slots)
  num_units, num_levels = len(slot_j) - 1, len(chain.gains)
  send = np.zeros((num_slots, num_levels, num_units + 1), np.int64)
  value = np.empty(send.shape)
  now = slot_j[None, :] / chain.gains[:, None]
  # What is left after the last slot is not allowed.
  after = np.where(np.arange(num_units + 1) == 0, 0.0, np.inf)
  after = np.tile(after, (num_levels, 1))
  for slot in reversed(range(num_slots)):
    best = np.full((num_levels, num_units + 1), np.inf)
    for units in range(num_units + 1):
      total = now[:, units, None] + after[:, : num_units + 1 - units]
      is_less = total < best[:, units:]
      best[:, units:] = np.where(is_less, total, best[:, units:])
      send[slot, :, units:][is_less] = units
    value[slot] = best
    after = _expected(chain.transition, best)
  return Programme(send, value, chain)


def evaluate(send: np.ndarray, slot_j: np.ndarray, chain: Chain) -> Programme:
  """The expected energy of any causal policy.

  Args:
    send: [S, H, Q + 1] units to send, at most those left; the last slot's are
      all that are left.
    slot_j: as for `solve`.
    chain: of the gains.

  Returns:
    A `Programme` with the energies of that policy.

  Raises:
    ValueError: as `solve`, or if the policy sends what is not there.
  """
  _check(slot_j, chain, len(send))
  left = np.arange(len(slot_j))
  if (send < 0).any() or (send > left).any() or (send[-1] != left).any():
    raise ValueError(
      "send must be in [0, units left], and all that is left in the last slot"
    )
  value = np.empty(send.shape)
  after = np.zeros(send.shape[1:])
  rows = np.arange(send.shape[1])[:, None]
  for slot in reversed(range(len(send))):
    now = slot_j[send[slot]] / chain.gains[:, None]
    value[slot] = now + after[rows, left - send[slot]]
    after = _expected(chain.transition, value[slot])
  return Programme(send, value, chain)


def uniform_bits(
  *, num_slots: int, num_levels: int, num_units: int
) -> np.ndarray:
  """The policy [S, H, Q + 1] that spreads what is left evenly over slots.

  Where Q is a multiple of S every slot sends Q / S units, and its expected
  energy is that of slow fading with E[1/h] in the place of 1/h: the surrogate
  that chooses experts, an upper bound of `solve`.
  """
  slots_left = np.arange(num_slots, 0, -1)[:, None]
  share = -(-np.arange(num_units + 1)[None] // slots_left)
  return np.repeat(share[:, None, :], num_levels, axis=1)


def outage_probability(programme: Programme) -> np.ndarray:
  """[Q + 1], the chance that units are left in a last slot of an outage."""
  num_slots, num_levels, width = programme.send.shape
  rows = np.arange(num_levels)[:, None]
  left = np.arange(width)
  is_outage = programme.chain.is_outage[:, None]
  chance = np.where(is_outage & (left > 0), 1.0, 0.0)
  for slot in reversed(range(num_slots - 1)):
    after = programme.chain.transition @ chance
    chance = after[rows, left - programme.send[slot]]
  return programme.chain.first @ chance


def simulate(
  programme: Programme,
  slot_j: np.ndarray,
  fading: Fading,
  drawn: np.ndarray,
  *,
  num_units: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Follows a policy on continuous gains.

  Args:
    programme: of `solve` or `evaluate`, on a chain of the fading.
    slot_j: [Q + 1] as for `solve`.
    fading: that the gains were drawn from.
    drawn: [R, S] gains.
    num_units: how many are sent, at most Q.

  Returns:
    Joules [R], and [R] bool, whether the last slot was an outage.
  """
  level = np.searchsorted(_edges(programme.chain, fading), drawn)
  left = np.full(len(drawn), num_units)
  spent = np.zeros(len(drawn))
  is_out = np.zeros(len(drawn), bool)
  num_slots = programme.send.shape[0]
  for slot in range(num_slots):
    units = programme.send[slot, level[:, slot], left]
    fails = programme.chain.is_outage[level[:, slot]] & (units > 0)
    if slot == num_slots - 1:
      is_out = fails
      units = np.where(fails, 0, units)
    spent = spent + slot_j[units] / drawn[:, slot]
    left = left - units
  return spent, is_out


def _expected(transition: np.ndarray, value: np.ndarray) -> np.ndarray:
  # Zero times inf is no number: what cannot follow does not count.
  cannot = (transition > 0).astype(float) @ np.isinf(value).astype(float) > 0
  finite = transition @ np.where(np.isinf(value), 0.0, value)
  return np.where(cannot, np.inf, finite)


def _check(slot_j: np.ndarray, chain: Chain, num_slots: int) -> None:
  if num_slots < 1:
    raise ValueError(f"num_slots must be at least 1, got num_slots={num_slots}")
  if slot_j.ndim != 1 or slot_j[0] != 0 or not (slot_j >= 0).all():
    raise ValueError(
      "slot_j must be [Q + 1], at least 0, and 0 for no unit, got "
      f"{slot_j.tolist()[:4]}"
    )
  gains = check_positive("gains", chain.gains)
  size = len(gains)
  shapes = (chain.first.shape, chain.transition.shape, chain.is_outage.shape)
  if shapes != ((size,), (size, size), (size,)):
    raise ValueError(
      f"first, transition and is_outage must be [H], [H, H], [H] for H={size}, "
      f"got {shapes}"
    )
  for name, rows in (("first", chain.first), ("transition", chain.transition)):
    check_not_negative(name, rows)
    total = rows.sum(axis=-1)
    if np.abs(total - 1).max() > 1e-9:
      raise ValueError(f"{name} must sum to 1, got {total.tolist()}")
