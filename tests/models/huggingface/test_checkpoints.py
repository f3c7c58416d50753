"""Every family and switch against what transformers computed."""

import functools

import hf_cases
import hf_folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import models


def look(layer, output):
  order = jnp.argsort(layer.routing.expert_ids, axis=1)
  return {
    "hidden": layer.hidden,
    "experts": jnp.take_along_axis(layer.routing.expert_ids, order, axis=1),
    "gates": jnp.take_along_axis(layer.routing.gates, order, axis=1),
  }


# Merged where blocks differ: biases, a shared expert with a gate or without,
# dense layers; all families are in `test_hf_transformers`.
MERGED = ("gpt_oss", "qwen2_moe", "ernie4_5_moe", "granitemoeshared")


@functools.partial(jax.jit, static_argnums=0)
def compute(model, params, ids, mask, weights):
  """What `record_fixtures.compute` does, in one program."""
  if model.config.num_experts is None:
    return {"logits": model.apply(params, ids, attention_mask=mask)}
  logits, seen = model.apply(
    params, ids, attention_mask=mask, observe=Partial(look)
  )
  if weights is None:
    return {"logits": logits, **seen}
  dense, merged = models.merge(model, params, weights)
  merged_logits = dense.apply(merged, ids, attention_mask=mask)
  return {"logits": logits, "merged_logits": merged_logits, **seen}


def check(folder, expected, seed):
  model, params = models.from_pretrained(folder)
  ids, mask = hf_cases.inputs(seed)
  found = compute(model, params, ids, mask, expected.get("weights"))
  is_token = mask.astype(bool)
  for name in found:
    ours, theirs = np.asarray(found[name]), expected[name]
    if name.endswith("logits"):
      ours, theirs = ours[is_token], theirs[is_token]
    else:
      ours, theirs = ours[:, is_token.ravel()], theirs[:, is_token.ravel()]
    if name == "experts":
      np.testing.assert_array_equal(ours, theirs)
    else:
      # Values of at most 10 after four layers in float32, in another order.
      np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0, err_msg=name)
  return model, params


@pytest.mark.parametrize("name", hf_cases.CASES)
def test_a_checkpoint_computes_what_transformers_does(name, tmp_path):
  folder = hf_folders.write(tmp_path / name, name)
  expected = hf_folders.expected(name)
  if name not in MERGED:
    expected["weights"] = None
  model, params = check(folder, expected, hf_folders.SEED)
  # What was read is written as it was.
  models.save_pretrained(model, params, tmp_path / "copy")
  written = hf_folders.read(tmp_path / "copy")
  assert written == hf_folders.read(folder)


@functools.partial(jax.jit, static_argnums=0)
def decode(model, params, ids, mask):
  """Logits after 8 tokens and after each of the 4 that follow: [B, 5, V]."""
  first, cache = model.prefill(
    params, ids[:, :8], capacity=ids.shape[1], attention_mask=mask[:, :8]
  )

  def step(cache, token_ids):
    logits, cache = model.decode_step(params, cache, token_ids)
    return cache, logits

  _, rest = jax.lax.scan(step, cache, ids[:, 8:].T)
  return jnp.concatenate((first[:, None], rest.swapaxes(0, 1)), axis=1)


def test_decoding_with_a_cache_is_the_whole_forward(tmp_path):
  """With windows in one layer of two, sinks and scaled positions."""
  name = "gpt_oss"
  model, params = models.from_pretrained(
    hf_folders.write(tmp_path / name, name)
  )
  found = decode(model, params, *hf_cases.inputs(hf_folders.SEED))
  logits = hf_folders.expected(name)["logits"]
  # The last sequence ends at its seventh token, so that it is read alone.
  np.testing.assert_allclose(found[:2], logits[:2, 7:], atol=1e-4)
  np.testing.assert_allclose(found[2, 0], logits[2, 6], atol=1e-4)


def test_bfloat16_is_near_float32(tmp_path):
  folder = hf_folders.write(tmp_path / "llama", "llama")
  model, params = models.from_pretrained(folder, dtype="bfloat16")
  ids, mask = hf_cases.inputs(hf_folders.SEED)
  found = compute(model, params, ids, mask, None)["logits"][mask > 0]
  expected = hf_folders.expected("llama")["logits"][mask > 0]
  # A rounding is off by at most 2^-9. About 20 a layer, of parameters and of
  # results, add up in the residual stream by chance of either sign; a softmax
  # doubles those of scores near 2.
  error = np.abs(found - expected) / np.std(expected)
  bound = 2 * (2 * 20) ** 0.5 * 2**-9
  assert np.sqrt(np.mean(error**2)) < bound
  assert error.max() < 5 * bound
