"""Masks that mask nothing leave every family as it is, to the bit."""

import functools

import hf_cases
import hf_folders
import jax
import numpy as np
import pytest

from tanbr_jax import masking, models

# Gates that are not rescaled by default; the others take a second each.
NAMES = [
  pytest.param(name, marks=() if name == "olmoe" else pytest.mark.slow)
  for name in hf_cases.CASES
]


@functools.partial(jax.jit, static_argnums=0)
def compute(model, params, ids, mask, reroute, observe):
  return model.apply(
    params, ids, attention_mask=mask, reroute=reroute, observe=observe
  )


@pytest.mark.parametrize("name", NAMES)
def test_zero_masks_are_the_original_to_the_bit(name, tmp_path):
  model, params = models.from_pretrained(
    hf_folders.write(tmp_path / name, name)
  )
  config = model.config
  if config.num_experts is None or not config.moe_layers:
    pytest.skip(f"{name} has no experts")
  ids, mask = hf_cases.inputs(hf_folders.SEED)
  zero = masking.init_mask_router(model)
  observe = masking.observe_activity()
  run = functools.partial(compute, model, params, ids, mask)
  plain, before = run(None, observe)
  masked, seen = run(masking.beam(zero), observe)
  np.testing.assert_array_equal(masked, plain)
  np.testing.assert_array_equal(seen.num_pairs, before.num_pairs)
  # Masks of ones and minus ones: every layer with experts has its own.
  kernel = np.sign(np.random.default_rng(0).normal(size=zero["kernel"].shape))
  router = {"kernel": kernel.astype(np.float32)}
  other, seen = run(masking.beam(router), observe)
  assert np.isfinite(np.asarray(other)[mask > 0]).all()
  assert (seen.num_pairs < before.num_pairs).all()
