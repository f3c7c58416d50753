"""Fast fading without a model: adaptive against uniform bits a slot. [R]."""

import numpy as np

from experiments.wireless.settings import WirelessSettings
from tanbr_jax.wireless import fading, fast_fading


def ratios(settings: WirelessSettings) -> list[dict[str, float]]:
  """Adaptive against uniform bits a slot, by slots and load. No model.

  Energies are relative to uniform bits, which in expectation is also slow
  fading at the same rate. Bands are over realisations of 200 transmissions.
  """
  one = fading.gamma(settings.radio.fading_shape)
  chain = fast_fading.independent(one, num_levels=32)
  rows = []
  rng = np.random.default_rng(settings.seed)
  for slots in settings.sweep.num_slots:
    for load in settings.sweep.slot_bits_per_hz:
      units = 8 * slots
      cost = np.expm1(np.arange(units + 1) * load / 8 * np.log(2))
      best = fast_fading.solve(cost, chain, num_slots=slots)
      send = fast_fading.uniform_bits(
        num_slots=slots, num_levels=len(chain.gains), num_units=units
      )
      even = fast_fading.evaluate(send, cost, chain)
      drawn = one.draw(rng, (settings.sweep.realisations, 200, slots))
      found = []
      for gains in drawn:
        took = [
          fast_fading.simulate(which, cost, one, gains, num_units=units)[0]
          for which in (best, even)
        ]
        found.append(took[0].mean() / took[1].mean())
      rows.append(
        {
          "slots": slots,
          "bits_per_hz": load,
          "expected": float(best.expected_j[units] / even.expected_j[units]),
          "drawn": np.array(found),
        }
      )
  return rows
