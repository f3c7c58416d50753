import dataclasses

import numpy as np
import pytest

from tanbr_jax.wireless import channels, instance, layer_energy

NODES = layer_energy.Nodes(
  is_local=np.array([True, False, False]),
  load_s=np.array([0.01, 0.02, 0.02]),
  compute_s=np.array([1e-3, 1e-3, 1e-3]),
  load_j=np.zeros(3),
  compute_j=np.array([0.5, 0.0, 0.0]),
)
LINK = layer_energy.Link(state_bits=4096.0, bandwidth_hz=1e5, deadline_s=0.1)
GAIN = np.array([1.0, 1e-7, 1e-9])


def by_loop(expert, num):
  """The energy of a helper and the violated constraint, written plainly."""
  if num == 0:
    return 0.0, ""
  noise = LINK.noise_w_per_hz * LINK.bandwidth_hz
  snr = LINK.helper_power_w * GAIN[expert] / noise
  down = num * LINK.state_bits / (LINK.bandwidth_hz * np.log2(1 + snr))
  up = LINK.deadline_s - down - num * NODES.compute_s[expert]
  if up <= 0:
    return np.inf, "deadline_s"
  if up < NODES.load_s[expert]:
    return np.inf, "load_s"
  rate = num * LINK.state_bits / (LINK.bandwidth_hz * up)
  energy = up * noise / GAIN[expert] * (2**rate - 1)
  return energy + LINK.helper_power_w * down, ""


def test_energies_are_those_of_a_plain_loop():
  costs = layer_energy.layer_costs(NODES, LINK, gain=GAIN, most_states=40)
  names = set()
  for expert in (1, 2):
    for num in range(41):
      energy, name = by_loop(expert, num)
      assert costs.energy_j[expert, num] == pytest.approx(energy, rel=1e-12)
      found = layer_energy.CONSTRAINTS[costs.violated[expert, num]]
      assert found == name, (expert, num)
      names.add(name)
  assert names == {"", "deadline_s", "load_s"}
  # The user's own: half a joule a state, while 10 ms + n ms <= 100 ms.
  assert costs.energy_j[0] == pytest.approx(0.5 * np.arange(41))
  assert costs.most_states[0] == 40
  late = dataclasses.replace(LINK, deadline_s=0.03)
  costs = layer_energy.layer_costs(NODES, late, gain=GAIN, most_states=40)
  assert costs.most_states[0] == 20 and costs.violated[0, 21] == 1
  assert costs.marginal_j[0, 20:].tolist() == [np.inf] * 20


def test_uplink_energy_is_convex_in_the_number_of_states():
  rng = np.random.default_rng(0)
  for _ in range(200):
    link = layer_energy.Link(
      state_bits=rng.uniform(1e3, 1e5),
      bandwidth_hz=10 ** rng.uniform(5, 7),
      deadline_s=rng.uniform(0.02, 0.5),
    )
    gain = channels.path_gain(rng.uniform(5, 150, 3)) * rng.gamma(2, 0.5, 3)
    costs = layer_energy.layer_costs(NODES, link, gain=gain, most_states=48)
    for energy in costs.energy_j[1:]:
      energy = energy[np.isfinite(energy)]
      # Up to the rounding of the energies themselves.
      assert (np.diff(energy, n=2) >= -1e-12 * energy[2:]).all()
    assert instance.is_convex(costs.marginal_j)


def test_a_load_s_energy_breaks_convexity():
  nodes = dataclasses.replace(NODES, load_j=np.full(3, 2.0))
  costs = layer_energy.layer_costs(nodes, LINK, gain=GAIN, most_states=4)
  assert not instance.is_convex(costs.marginal_j)
  assert costs.energy_j[0].tolist() == [0.0, 2.5, 3.0, 3.5, 4.0]


def test_a_largest_power_is_a_constraint():
  free = layer_energy.layer_costs(NODES, LINK, gain=GAIN, most_states=20)
  # The helper at -90 dB needs the power of its energies over its time.
  bound = dataclasses.replace(LINK, most_power_w=1e-6)
  costs = layer_energy.layer_costs(NODES, bound, gain=GAIN, most_states=20)
  power = layer_energy.CONSTRAINTS.index("most_power_w")
  assert (costs.violated == power).any()
  is_kept = np.isfinite(costs.energy_j)
  np.testing.assert_array_equal(costs.energy_j[is_kept], free.energy_j[is_kept])


def test_mean_inverse_scales_the_uplink_alone():
  quiet = dataclasses.replace(LINK, counts_downlink=False)
  slow = layer_energy.layer_costs(NODES, quiet, gain=GAIN, most_states=5)
  fast = layer_energy.layer_costs(
    NODES, quiet, gain=GAIN, most_states=5, mean_inverse=2.0
  )
  np.testing.assert_allclose(fast.energy_j[1:], 2 * slow.energy_j[1:])
  np.testing.assert_array_equal(fast.energy_j[0], slow.energy_j[0])


def test_latency_is_consistent_with_the_energies():
  # Sent at the power that n states need, they arrive at the deadline.
  costs = layer_energy.layer_costs(NODES, LINK, gain=GAIN, most_states=8)
  quiet = dataclasses.replace(LINK, counts_downlink=False)
  up_j = layer_energy.layer_costs(NODES, quiet, gain=GAIN, most_states=8)
  for expert in (1, 2):
    down = (costs.energy_j - up_j.energy_j)[expert, 8] / LINK.helper_power_w
    up_s = LINK.deadline_s - down - 8 * NODES.compute_s[expert]
    power = up_j.energy_j[expert, 8] / up_s
    link = dataclasses.replace(LINK, most_power_w=power)
    loads = np.where(np.arange(3) == expert, 8, 0)
    found = layer_energy.latency_s(NODES, link, gain=GAIN, loads=loads)
    assert found[expert] == pytest.approx(LINK.deadline_s, rel=1e-9)
    assert found[3 - expert] == 0.0


def test_a_deadline_too_short_for_all_is_refused_in_one_line():
  nodes = dataclasses.replace(NODES, is_local=np.zeros(3, bool))
  link = dataclasses.replace(LINK, deadline_s=0.008)
  with pytest.raises(
    ValueError, match="no expert.*load_s.*deadline_s=0.008"
  ) as e:
    layer_energy.layer_costs(nodes, link, gain=GAIN, most_states=4)
  assert "\n" not in str(e.value)
  with pytest.raises(ValueError, match="deadline_s must be .*deadline_s=0"):
    dataclasses.replace(LINK, deadline_s=0)
  with pytest.raises(
    ValueError, match="bandwidth_hz must be .*bandwidth_hz=-1"
  ):
    dataclasses.replace(LINK, bandwidth_hz=-1)
  with pytest.raises(ValueError, match="gain must be positive .*gain=0.0"):
    layer_energy.layer_costs(NODES, LINK, gain=np.zeros(3), most_states=1)
  with pytest.raises(ValueError, match=r"load_s must be \[E\]"):
    dataclasses.replace(NODES, load_s=np.zeros(2))
