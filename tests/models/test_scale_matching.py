import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import models
from tanbr_jax.moe import feed_forward


def look(layer, output):
  """What went in, and what came out of the shared expert and of all."""
  shared = feed_forward.add_shared(
    jnp.zeros_like(output.output), layer.experts, layer.hidden
  )
  return layer.hidden, shared, output.output


@pytest.fixture(scope="module")
def case():
  """Gates that do not sum to one, a shared expert, padding on both sides."""
  config = models.preset("tiny", num_layers=2)
  config = dataclasses.replace(
    config, router=models.RouterOptions(renormalise=False, gate_scale=2.5)
  )
  model = models.Decoder(config)
  params = jax.jit(model.init)(jax.random.key(0))
  ids = jax.random.randint(jax.random.key(1), (5, 12), 0, config.vocab_size)
  mask = np.ones((5, 12), bool)
  mask[0, :5], mask[3, -4:] = False, False
  weights = jnp.float32([0.4, 0.3, 0.2, 0.1])
  _, merged = models.merge(model, params, weights)
  _, seen = jax.jit(
    lambda p: model.apply(p, ids, attention_mask=mask, observe=Partial(look))
  )(params)
  return model, params, merged, ids, mask, seen


def block_of(params, layer):
  return params["params"][f"layer_{layer}"]["experts"]["stack"]


def outputs(block, hidden):
  """A gated block without its shared one in float64."""
  w_in, w_gate, w_out = (
    np.asarray(w, np.float64) for w in (block.w_in, block.w_gate, block.w_out)
  )
  gate = hidden @ w_gate
  return (gate / (1 + np.exp(-gate)) * (hidden @ w_in)) @ w_out


@pytest.mark.parametrize("mode", ["per_dimension", "scalar"])
def test_the_merged_outputs_have_the_spread_of_the_routed_ones(case, mode):
  model, params, merged, ids, mask, seen = case
  found = models.match_scale(
    model, params, merged, ids, attention_mask=mask, mode=mode
  )
  for layer in range(2):
    hidden, shared, output = (
      np.asarray(part[layer], np.float64)[mask.ravel()] for part in seen
    )
    wanted = np.std(output - shared, axis=0)
    have = np.std(outputs(block_of(found, layer), hidden), axis=0)
    before = np.std(outputs(block_of(merged, layer), hidden), axis=0)
    assert np.abs(before / wanted - 1).max() > 0.2
    if mode == "scalar":
      # One factor for all dimensions, which matches their total.
      factors = have / before
      np.testing.assert_allclose(factors, factors[0], rtol=1e-5)
      wanted, have = np.sqrt((wanted**2).sum()), np.sqrt((have**2).sum())
    # Float32 sums of 24 products, and the subtraction of the shared output.
    np.testing.assert_allclose(have, wanted, rtol=1e-4)


def test_batches_are_as_good_as_one(case):
  model, params, merged, ids, mask, _ = case
  # By default all five at once.
  whole, parts = (
    models.match_scale(
      model, params, merged, ids, attention_mask=mask, **options
    )
    for options in ({}, {"batch_size": 3})
  )
  for ours, theirs in zip(
    jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_only_the_blocks_outputs_change(case):
  model, params, merged, ids, mask, _ = case
  found = models.match_scale(model, params, merged, ids, attention_mask=mask)
  for layer in range(2):
    before, after = block_of(merged, layer), block_of(found, layer)
    assert after.shared is before.shared and after.w_in is before.w_in
  assert found["params"]["embedding"] is merged["params"]["embedding"]


def test_an_output_that_never_varies_stays(case):
  model, params, merged, ids, mask, _ = case
  block = block_of(merged, 0)
  dead = dataclasses.replace(block, w_out=block.w_out.at[:, 3].set(0))
  layers = dict(merged["params"])
  layers["layer_0"] = {**layers["layer_0"], "experts": {"stack": dead}}
  found = models.match_scale(
    model, params, {"params": layers}, ids, attention_mask=mask
  )
  assert np.all(block_of(found, 0).w_out[:, 3] == 0)
  assert np.all(np.isfinite(block_of(found, 0).w_out))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mode": "both"}, "mode='both'"),
    ({"input_ids": np.zeros(4, np.int32)}, r"\(4,\)"),
    ({"attention_mask": np.zeros((5, 12))}, "0 tokens"),
    ({"attention_mask": np.ones((5, 11))}, r"\(5, 11\)"),
  ],
)
def test_what_cannot_be_matched_is_refused(case, changes, message):
  model, params, merged, ids, _, _ = case
  with pytest.raises(ValueError, match=message):
    models.match_scale(model, params, merged, **{"input_ids": ids, **changes})
