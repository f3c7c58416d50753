import numpy as np
import pytest

from tanbr_jax import wireless
from tanbr_jax.wireless import channels, units


def test_decibels_of_known_values():
  # 0 dBm is 1 mW, 30 dBm 1 W, 38 dBm 10^0.8 W; 3 dB is a factor of 1.9953.
  assert units.dbm_to_w(0) == pytest.approx(1e-3, rel=1e-15)
  assert units.dbm_to_w(30) == pytest.approx(1.0, rel=1e-15)
  assert channels.HELPER_POWER_W == pytest.approx(6.30957344480193, rel=1e-14)
  # -174 dBm/Hz is the thermal noise of 288 K: k T = 1.380649e-23 * 288.35.
  assert channels.NOISE_W_PER_HZ == pytest.approx(3.98107170553497e-21)
  assert units.db_to_ratio(3) == pytest.approx(1.99526231496888, rel=1e-14)
  assert units.ratio_to_db(units.db_to_ratio(-7.5)) == pytest.approx(-7.5)
  assert units.w_to_dbm(units.dbm_to_w([-174, 38])) == pytest.approx([-174, 38])


def test_the_paper_s_transmission_times():
  # 4096 x 16 bits at 10 Mbit/s take 6.5536 ms, at 50 Mbit/s 1.31072 ms: what a
  # rate needs in power, an energy over that time has to give back.
  bits = 4096 * 16
  for rate, seconds in ((10e6, 6.5536e-3), (50e6, 1.31072e-3)):
    assert bits / rate == pytest.approx(seconds, rel=1e-12)
    energy = wireless.uplink_energy_j(
      bits, gain=1e-9, bandwidth_hz=2e6, noise_w_per_hz=4e-21, seconds=seconds
    )
    found = wireless.rate_bits_per_s(
      power_w=energy / seconds,
      gain=1e-9,
      bandwidth_hz=2e6,
      noise_w_per_hz=4e-21,
    )
    assert found == pytest.approx(rate, rel=1e-12)


def test_uplink_energy_by_hand():
  # One bit a second and hertz doubles: 2 s * 1e-20 * 3 Hz / 0.5 * (2 - 1).
  energy = wireless.uplink_energy_j(
    6.0, gain=0.5, bandwidth_hz=3.0, noise_w_per_hz=1e-20, seconds=2.0
  )
  assert energy == pytest.approx(1.2e-19, rel=1e-14)
  energies = wireless.uplink_energy_j(
    [0.0, 0.0, 5.0, 1e9],
    gain=1.0,
    bandwidth_hz=1.0,
    noise_w_per_hz=1.0,
    seconds=[1.0, -1.0, 0.0, 1.0],
  )
  assert energies.tolist() == [0.0, 0.0, np.inf, np.inf]


def test_path_gain_falls_by_the_exponent():
  gains = wireless.path_gain([1.0, 10.0, 150.0])
  assert gains == pytest.approx([1.0, 1e-4, 150.0**-4], rel=1e-14)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"bandwidth_hz": 0.0}, "bandwidth_hz must be positive .*bandwidth_hz=0.0"),
    ({"gain": -1.0}, "gain must be positive and finite, got gain=-1.0"),
    ({"noise_w_per_hz": np.nan}, "noise_w_per_hz must be .*=nan"),
    ({"bits": -3.0}, "bits must be at least 0 and finite, got bits=-3.0"),
    ({"seconds": np.nan}, "seconds must be numbers, got seconds=nan"),
  ],
)
def test_bad_links_are_refused(change, message):
  arguments = {
    "bits": 1.0,
    "gain": 1.0,
    "bandwidth_hz": 1.0,
    "noise_w_per_hz": 1.0,
    "seconds": 1.0,
  } | change
  with pytest.raises(ValueError, match=message) as error:
    wireless.uplink_energy_j(arguments.pop("bits"), **arguments)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("distance", [0.0, -2.0, np.inf])
def test_bad_distances_are_refused(distance):
  with pytest.raises(ValueError, match=f"distance_m=.*{distance}"):
    wireless.path_gain([5.0, distance])
