import numpy as np
import pytest
from scipy import integrate

from tanbr_jax.wireless import fading

KINDS = {
  "gamma": fading.gamma(2.0),
  "gamma_3.5": fading.gamma(3.5),
  "rayleigh": fading.rayleigh(),
  "rician": fading.rician(4.0),
}


@pytest.mark.parametrize("name", KINDS)
def test_power_has_mean_one_and_the_density_it_is_drawn_from(name):
  one = KINDS[name]
  draws = one.draw(np.random.default_rng(0), 40_000)
  # The variance is at most 1 (Rayleigh): five standard errors are 0.025.
  assert draws.mean() == pytest.approx(1.0, abs=0.025)
  for chance in (0.1, 0.5, 0.9):
    # A share of 40,000 draws: five standard errors of at most 0.0025.
    assert np.mean(draws < one.quantile(chance)) == pytest.approx(
      chance, abs=0.0125
    )
  mass, _ = integrate.quad(one.density, 0, np.inf)
  assert mass == pytest.approx(1.0, rel=1e-6)


def test_mean_inverse_in_closed_form_and_by_integration():
  # Gamma of shape 2 and mean 1: E[1/h] = 2 / (2 - 1).
  assert KINDS["gamma"].mean_inverse() == pytest.approx(2.0, rel=1e-12)
  assert KINDS["gamma_3.5"].mean_inverse() == pytest.approx(1.4, rel=1e-12)
  for one in KINDS.values():
    least = float(one.quantile(0.1))
    by_hand, _ = integrate.quad(
      lambda h, one=one: one.density(h) / h, least, 60, limit=200, points=[1, 4]
    )
    found = one.mean_inverse(outage_probability=0.1)
    assert found == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("one", [fading.rayleigh(), fading.rician(3.0)])
def test_plain_inversion_is_refused_where_the_density_at_zero_is_not_zero(one):
  assert one.density(1e-9) > 0.01
  with pytest.raises(ValueError, match="infinite.*outage_probability > 0, got"):
    one.mean_inverse()
  # It grows without end as the outage shrinks: like minus the logarithm.
  found = [one.mean_inverse(outage_probability=10.0**-k) for k in (2, 4, 6)]
  steps = np.diff(found)
  assert steps[0] > 0.1 and steps[1] == pytest.approx(steps[0], rel=0.15)


@pytest.mark.parametrize("outage", [0.0, 0.05])
def test_levels_keep_the_chances_and_the_mean_inverse(outage):
  one = KINDS["gamma"]
  gains, chances, is_outage = one.levels(16, outage_probability=outage)
  assert (np.diff(gains) > 0).all()
  assert chances.sum() == pytest.approx(1.0, rel=1e-12)
  assert chances[is_outage].sum() == pytest.approx(outage, abs=1e-15)
  served = ~is_outage
  assert chances[served] @ (1 / gains[served]) == pytest.approx(
    one.mean_inverse(outage_probability=outage), rel=1e-9
  )


def test_gauss_markov_keeps_the_distribution_and_the_correlation():
  rng = np.random.default_rng(1)
  for one in (fading.gamma(2.0), fading.rayleigh(), fading.rician(2.0)):
    gains = fading.gauss_markov(
      one, rng, num_slots=2, size=(40_000,), correlation=0.8
    )
    for slot in gains:
      assert slot.mean() == pytest.approx(1.0, abs=0.025)
      assert np.mean(slot < one.quantile(0.3)) == pytest.approx(0.3, abs=0.0125)
    if one.direct_ratio is None:
      # Powers of amplitudes with correlation r have correlation r^2; a sample
      # correlation of 40,000 has a standard error below 0.01 here.
      assert np.corrcoef(gains)[0, 1] == pytest.approx(0.64, abs=0.04)
  still = fading.gauss_markov(
    fading.gamma(2.0), rng, num_slots=3, correlation=1.0
  )
  assert np.ptp(still) == pytest.approx(0.0, abs=1e-12)


def test_bad_fading_is_refused():
  for bad in ({}, {"shape": 1.0, "direct_ratio": 1.0}):
    with pytest.raises(ValueError, match="give shape or direct_ratio, got"):
      fading.Fading(**bad)
  with pytest.raises(ValueError, match="shape must be positive .*shape=0.0"):
    fading.gamma(0.0)
  with pytest.raises(ValueError, match="integer shape, got shape=1.5"):
    fading.gauss_markov(
      fading.gamma(1.5), np.random.default_rng(0), num_slots=1
    )
  with pytest.raises(ValueError, match="outage_probability=1"):
    fading.gamma().mean_inverse(outage_probability=1)
