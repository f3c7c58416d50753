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


@functools.partial(jax.jit, static_argnums=0)
def compute(model, params, ids, mask, weights):
  """What `record_fixtures.compute` does, in one program."""
  if model.config.num_experts is None:
    return {"logits": model.apply(params, ids, attention_mask=mask)}
  logits, seen = model.apply(
    params, ids, attention_mask=mask, observe=Partial(look)
  )
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


@pytest.mark.parametrize("name", hf_cases.CASES)
def test_a_checkpoint_computes_what_transformers_does(name, tmp_path):
  folder = hf_folders.write(tmp_path / name, name)
  check(folder, hf_folders.expected(name), hf_folders.SEED)
