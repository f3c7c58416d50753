"""One tiny model, its calibration on two domains, and what its layers saw."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import compress, models, moe


@moe.needs_pair_outputs
def see(tree, layer, output):
  del tree
  return layer._replace(experts=None), output.pair_outputs


class Case(NamedTuple):
  model: models.ByteLM
  params: models.Params
  text: dict  # domain -> list of (ids, mask)
  statistics: dict  # domain -> CalibrationStatistics with everything

  def seen(self, domain):
    """Layers' inputs in NumPy float64, their tokens that are no padding."""
    apply = jax.jit(
      lambda p, i, m: self.model.apply(
        p, i, attention_mask=m, observe=Partial(see, ())
      )[1]
    )
    parts = []
    for ids, mask in self.text[domain]:
      layer, pairs = apply(self.params, ids, mask)
      rows = np.asarray(mask).reshape(-1)
      parts.append(
        {
          "x": layer.hidden[:, rows],
          "logits": layer.router_logits[:, rows],
          "ids": layer.routing.expert_ids[:, rows],
          "gates": layer.routing.gates[:, rows],
          "probabilities": layer.routing.probabilities[:, rows],
          "residual": layer.residual[:, rows],
          "pairs": pairs[:, rows],
        }
      )
    joined = {
      name: np.concatenate([np.asarray(p[name]) for p in parts], axis=1)
      for name in parts[0]
    }
    return {
      name: x if name == "ids" else x.astype(np.float64)
      for name, x in joined.items()
    }


@pytest.fixture(scope="session")
def case():
  model = models.ByteLM(
    models.ByteLMConfig(
      num_layers=2,
      model_dim=8,
      num_heads=2,
      head_dim=4,
      expert_dim=6,
      num_experts=4,
      num_selected=2,
      context=6,
    )
  )
  params = jax.jit(model.init)(jax.random.key(3))
  rng = np.random.default_rng(0)
  text = {}
  # Bytes of two alphabets; padding on both sides.
  for domain, low in (("letters", 97), ("digits", 48)):
    batches = []
    for _ in range(2):
      ids = rng.integers(low, low + 10, (2, 6)).astype(np.int32)
      mask = np.ones((2, 6), bool)
      mask[0, :2], mask[1, 5:] = False, False
      batches.append((ids, mask))
    text[domain] = batches
  statistics = {
    domain: compress.calibrate(
      model,
      params,
      batches,
      domain=domain,
      needs=tuple(compress.NEEDS),
      thresholds=("mean", None, 0.6),
      max_samples=7,
    )
    for domain, batches in text.items()
  }
  return Case(model, params, text, statistics)
