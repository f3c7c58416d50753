import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from mask_cases import MODEL

from tanbr_jax import masking, moe
from tanbr_jax.masking import moments


def test_a_layer_gets_the_full_models_moments_back():
  params = MODEL.init(jax.random.key(0))
  ids = jax.random.randint(jax.random.key(1), (3, 8), 0, 256)
  fewer = masking.smaller_k(MODEL, 1)
  # Without its normalisation the outputs with one expert differ in scale.
  matched = masking.match_moments(MODEL, params, ids, fewer, eps=0.0)
  see = Partial(lambda layer, output: (layer.hidden, output.output))
  run = jax.jit(
    lambda reroute: MODEL.apply(params, ids, reroute=reroute, observe=see)[1]
  )
  (_, full), (_, few), (_, found) = run(None), run(fewer), run(matched)
  # The first layer sees the same input in all three.
  full, few, found = (np.float64(out[0]) for out in (full, few, found))
  scale = full.std(0) / few.std(0)
  expected = scale * (few - few.mean(0)) + full.mean(0)
  np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)
  np.testing.assert_allclose(found.std(0), full.std(0), rtol=1e-3)
  assert np.abs(scale - 1).max() > 0.05
  # The second layer is calibrated on the full model's inputs, too.
  both = moments.output_moments(MODEL, params, ids, fewer)
  np.testing.assert_allclose(both[0].mean[0], full.mean(0), atol=1e-5)
  np.testing.assert_allclose(both[1].deviation[0], few.std(0), rtol=1e-4)


def test_ratios_are_quantiles_of_each_ranks_gates():
  params = MODEL.init(jax.random.key(0))
  ids = jax.random.randint(jax.random.key(1), (3, 8), 0, 256)
  see = Partial(lambda layer, output: layer.routing.gates)
  gates = np.float64(MODEL.apply(params, ids, observe=see)[1])
  expected = np.median(gates[..., 1:] / gates[..., :1], axis=1)
  found = masking.gate_ratios(MODEL, params, ids)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  skip = masking.naee_skip(MODEL, found)
  _, seen = MODEL.apply(
    params, ids, reroute=skip, observe=masking.observe_activity()
  )
  # Half of the 24 tokens lose their second, half their third expert.
  np.testing.assert_array_equal(seen.num_by_rank, [[24, 12, 12]] * 2)


def test_an_adjusted_output_is_observed():
  """What an observer sees of the output is what the layer gives on."""
  experts = moe.init_experts(jax.random.key(0), 3, model_dim=4, expert_dim=8)
  x = jax.random.normal(jax.random.key(1), (5, 4))
  logits = x[:, :3]
  routing = moe.top_k(logits, 2)
  scale, shift = jnp.arange(4.0), jnp.ones(4)
  out, seen = moe.apply_layer(
    experts,
    x,
    logits,
    routing,
    reroute=Partial(lambda layer: moe.Adjusted(layer.routing, scale, shift)),
    observe=Partial(lambda layer, output: (layer.routing, output.output)),
  )
  plain = moe.routed(experts, x, routing)
  np.testing.assert_allclose(out, plain * scale[None] + 1, rtol=1e-6)
  np.testing.assert_array_equal(seen[1], out)
  np.testing.assert_array_equal(seen[0].expert_ids, routing.expert_ids)
