"""The energy that each expert of a layer takes for a number of states.

[R] throughout: the paper's digest names the parts (uplink, load, compute,
downlink; loading overlaps the uplink), not their formulas.

A helper gets n states of `state_bits` in the time tau = deadline - downlink(n)
- compute(n), which must be at least its loading time, and sends n outputs back
at its own power. The user's own experts (`is_local`) take no radio, but the
energy of loading and computing. Energies are convex in n, as the uplink's is
convex in bits and time together, unless loading takes energy: a fixed cost of
the first state breaks it, and then `select_prefill` takes the programme over
load vectors, or `prefill_milp` what is too large for that.

Letters: E experts, M states at most.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from tanbr_jax.wireless import channels
from tanbr_jax.wireless.units import check_not_negative, check_positive

# The constraints that can be violated, by their numbers in `LayerCosts`.
FEASIBLE, DEADLINE, LOADING, POWER = range(4)
CONSTRAINTS = ("", "deadline_s", "load_s", "most_power_w")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nodes:
  """Where the experts of a layer are, and what they take there.

  Attributes:
    is_local: [E] bool, whether the expert is the user's own.
    load_s: [E] seconds of loading an expert.
    compute_s: [E] seconds of computing one state.
    load_j: [E] joules of loading; counted once if there is any state.
    compute_j: [E] joules of computing one state.
  """

  is_local: np.ndarray
  load_s: np.ndarray
  compute_s: np.ndarray
  load_j: np.ndarray
  compute_j: np.ndarray

  def __post_init__(self) -> None:
    """Raises a ValueError if an array is not [E] or a value negative."""
    shape = np.shape(self.is_local)
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if np.shape(value) != shape or len(shape) != 1:
        raise ValueError(
          f"{field.name} must be [E] as is_local, got {np.shape(value)} for "
          f"{shape}"
        )
      if field.name != "is_local":
        check_not_negative(field.name, value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
  """The radio of a layer.

  Attributes:
    state_bits: of a hidden state, and of an output.
    bandwidth_hz: of each helper's link, in each direction.
    deadline_s: of the layer.
    noise_w_per_hz: noise density.
    helper_power_w: of the downlink.
    most_power_w: the user's largest power on a link; None is no limit [R].
    counts_downlink: whether the helpers' energy of sending counts.
  """

  state_bits: float
  bandwidth_hz: float
  deadline_s: float
  noise_w_per_hz: float = channels.NOISE_W_PER_HZ
  helper_power_w: float = channels.HELPER_POWER_W
  most_power_w: float | None = None
  counts_downlink: bool = True

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not positive."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name != "counts_downlink" and value is not None:
        check_positive(field.name, value)


class LayerCosts(NamedTuple):
  """Energies of 0 to M states at every expert.

  Attributes:
    energy_j: [E, M + 1], 0 for no state, inf where they cannot be served.
    violated: [E, M + 1] int, which of `CONSTRAINTS` forbids it; 0 for none.
  """

  energy_j: np.ndarray
  violated: np.ndarray

  @property
  def marginal_j(self) -> np.ndarray:
    """[E, M], the energy of each further state; inf = cannot."""
    before = self.energy_j[:, :-1]
    return np.where(
      np.isinf(self.energy_j[:, 1:]),
      np.inf,
      self.energy_j[:, 1:] - np.where(np.isinf(before), 0.0, before),
    )

  @property
  def most_states(self) -> np.ndarray:
    """[E] how many states each expert can serve."""
    return np.isfinite(self.energy_j).sum(axis=1) - 1


def layer_costs(
  nodes: Nodes,
  link: Link,
  *,
  gain: np.ndarray,
  most_states: int,
  mean_inverse: float = 1.0,
) -> LayerCosts:
  """The energies of a layer for one realisation of its links.

  Args:
    nodes: where its experts are.
    link: the radio.
    gain: [E] power gains of the links, path loss included; those of local
      experts are not read.
    most_states: M.
    mean_inverse: multiplies the uplink's energy: E[1/h] of fast fading, for
      which `gain` is the path's, see `fast_fading`; 1 for slow fading. The
      downlink takes the gain as it is [R].

  Returns:
    The `LayerCosts`.

  Raises:
    ValueError: if a gain is not positive or no expert can serve one state.
  """
  num = np.arange(most_states + 1)[None, :]
  is_local = np.asarray(nodes.is_local, bool)
  gain = np.where(is_local, 1.0, np.asarray(gain, np.float64))[:, None]
  check_positive("gain", gain)
  down_rate = channels.rate_bits_per_s(
    power_w=link.helper_power_w,
    gain=gain,
    bandwidth_hz=link.bandwidth_hz,
    noise_w_per_hz=link.noise_w_per_hz,
  )
  load_s = np.asarray(nodes.load_s, np.float64)[:, None]
  compute_s = np.asarray(nodes.compute_s, np.float64)[:, None] * num
  # Helpers: what the downlink and computing leave is the uplink's.
  down_s = num * link.state_bits / down_rate
  up_s = link.deadline_s - down_s - compute_s
  up_j = mean_inverse * channels.uplink_energy_j(
    num * link.state_bits,
    gain=gain,
    bandwidth_hz=link.bandwidth_hz,
    noise_w_per_hz=link.noise_w_per_hz,
    seconds=up_s,
  )
  helper = up_j + link.counts_downlink * link.helper_power_w * down_s
  violated = np.where(up_s <= 0, DEADLINE, FEASIBLE)
  violated = np.where((up_s > 0) & (up_s < load_s), LOADING, violated)
  # An energy beyond float64 is beyond every power.
  too_strong = np.isinf(up_j)
  if link.most_power_w is not None:
    too_strong |= up_j > link.most_power_w * np.maximum(up_s, 0)
  violated = np.where((violated == 0) & too_strong, POWER, violated)
  # The user's own: loading, then computing.
  late = load_s + compute_s > link.deadline_s
  local_violated = np.where(late, DEADLINE, FEASIBLE)
  violated = np.where(is_local[:, None], local_violated, violated)
  violated = np.where(num == 0, FEASIBLE, violated)
  energy = np.where(is_local[:, None], 0.0, helper)
  energy = energy + (num > 0) * np.asarray(nodes.load_j)[:, None]
  energy = energy + num * np.asarray(nodes.compute_j)[:, None]
  energy = np.where(violated > 0, np.inf, energy)
  costs = LayerCosts(energy, violated)
  if most_states and not np.isfinite(energy[:, 1]).any():
    first = CONSTRAINTS[violated[0, 1]]
    raise ValueError(
      f"no expert can serve one state: {first} of expert 0 is violated, got "
      f"deadline_s={link.deadline_s}, bandwidth_hz={link.bandwidth_hz}, "
      f"state_bits={link.state_bits}, least load_s={load_s.min()}"
    )
  return costs


def latency_s(
  nodes: Nodes, link: Link, *, gain: np.ndarray, loads: np.ndarray
) -> np.ndarray:
  """The time that each expert takes where the user sends at its largest power.

  Args:
    nodes: where the experts are.
    link: the radio, with `most_power_w`.
    gain: [E] power gains.
    loads: [E] states.

  Returns:
    [E] seconds; 0 for experts without states.

  Raises:
    ValueError: if there is no largest power.
  """
  if link.most_power_w is None:
    raise ValueError("latency_s needs most_power_w, got most_power_w=None")
  gain = np.where(nodes.is_local, 1.0, gain)
  common = {
    "gain": gain,
    "bandwidth_hz": link.bandwidth_hz,
    "noise_w_per_hz": link.noise_w_per_hz,
  }
  bits = loads * link.state_bits
  up = bits / channels.rate_bits_per_s(power_w=link.most_power_w, **common)
  down = bits / channels.rate_bits_per_s(power_w=link.helper_power_w, **common)
  remote = np.maximum(up, nodes.load_s) + loads * nodes.compute_s + down
  local = nodes.load_s + loads * nodes.compute_s
  return np.where(loads > 0, np.where(nodes.is_local, local, remote), 0.0)
