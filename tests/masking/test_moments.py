import jax
import mask_cases
import numpy as np
from jax.tree_util import Partial
from mask_cases import IDS, MODEL

from tanbr_jax import masking, moe
from tanbr_jax.masking import moments


def test_a_layer_gets_the_full_models_moments_back():
  params = mask_cases.params()
  fewer = masking.smaller_k(MODEL, 1)
  matched = masking.match_moments(MODEL, params, IDS, fewer, eps=0.0)
  (_, _, full), _ = mask_cases.see()
  (_, _, few), _ = mask_cases.see(fewer)
  (_, _, found), _ = mask_cases.see(matched)
  # The first layer sees the same input in all three.
  full, few, found = (np.float64(out[0]) for out in (full, few, found))
  scale = full.std(0) / few.std(0)
  expected = scale * (few - few.mean(0)) + full.mean(0)
  np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)
  np.testing.assert_allclose(found.std(0), full.std(0), rtol=1e-3)
  assert np.abs(scale - 1).max() > 0.05
  both = moments.output_moments(MODEL, params, IDS, fewer)
  np.testing.assert_allclose(both[0].mean[0], full.mean(0), atol=1e-5)
  np.testing.assert_allclose(both[1].deviation[0], few.std(0), rtol=1e-4)


def test_ratios_are_quantiles_of_each_ranks_gates():
  (_, gates, _), _ = mask_cases.see()
  gates = np.float64(gates)
  expected = np.median(gates[..., 1:] / gates[..., :1], axis=1)
  found = masking.gate_ratios(MODEL, mask_cases.params(), IDS)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  _, seen = mask_cases.see(masking.naee_skip(MODEL, found))
  # Half of the 24 tokens lose their second, half their third expert; the
  # second layer is calibrated on another input.
  np.testing.assert_array_equal(seen.num_by_rank[0], [24, 12, 12])


def test_an_adjusted_output_is_observed():
  """What an observer sees of the output is what the layer gives on."""
  experts = mask_cases.experts(3)
  x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
  scale, shift = np.arange(4, dtype=np.float32), np.ones(4, np.float32)

  @jax.jit
  def run(x):
    logits = x[:, :3]
    routing = moe.top_k(logits, 2)
    adjusted = moe.apply_layer(
      experts,
      x,
      logits,
      routing,
      reroute=Partial(lambda layer: moe.Adjusted(layer.routing, scale, shift)),
      observe=Partial(lambda layer, output: (layer.routing, output.output)),
    )
    return routing, moe.routed(experts, x, routing), adjusted

  routing, plain, (out, seen) = run(x)
  np.testing.assert_allclose(out, np.asarray(plain) * scale + 1, rtol=1e-6)
  np.testing.assert_array_equal(seen[1], out)
  np.testing.assert_array_equal(seen[0].expert_ids, routing.expert_ids)
