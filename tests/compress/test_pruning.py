"""Pruned models: as the mask, smaller, and the best of all sets."""

import functools

import jax
import numpy as np
import plain_moe
import pytest
import slow_statistics

from tanbr_jax import compress, models

# Logits near 1 of two small layers in float32.
CLOSE = {"atol": 2e-5, "rtol": 0}


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, ids, reroute=None):
  return model.apply(params, ids, reroute=reroute)


def test_pruned_and_masked_agree(case):
  ids = case.text["letters"][0][0]
  keep = [[3, 1, 0], [0, 1, 2]]
  masked = compress.reroute(case.model, case.params, keep)
  model, params = compress.prune(case.model, case.params, keep)
  assert model.config.num_experts == 3
  found = apply(model, params, ids)
  np.testing.assert_allclose(
    found, apply(case.model, case.params, ids, masked), **CLOSE
  )
  everything = np.tile(np.arange(4), (2, 1))
  whole = compress.reroute(case.model, case.params, everything)
  assert np.abs(found - apply(case.model, case.params, ids, whole)).max() > 1e-3
  ratio = models.expert_bytes(params) / models.expert_bytes(case.params)
  assert ratio == 0.75


def test_all_experts_are_the_model_itself(case):
  everything = np.tile(np.arange(4), (2, 1))
  model, params = compress.prune(case.model, case.params, everything)
  assert model == case.model
  jax.tree.map(np.testing.assert_array_equal, params, case.params)


def test_layers_may_differ_under_the_mask_alone(case):
  keep = [[0, 1], [1, 2, 3]]
  masked = compress.reroute(case.model, case.params, keep)
  found = apply(case.model, case.params, case.text["letters"][0][0], masked)
  assert np.isfinite(found).all()
  with pytest.raises(ValueError, match="got 2 to 3: reroute"):
    compress.prune(case.model, case.params, keep)


@pytest.mark.parametrize("num_kept", [2, 3])
def test_enumeration_finds_the_best_set(case, num_kept):
  found = compress.enumerate_keep(
    case.model, case.params, case.statistics["digits"], num_kept
  )
  samples = case.statistics["digits"]
  for layer in (0, 1):
    stack = case.params["params"][f"layer_{layer}"]["experts"]["stack"]
    expected = slow_statistics.best_set(
      plain_moe.to_float64(stack),
      samples.sample_inputs[layer].astype(np.float64),
      samples.sample_logits[layer].astype(np.float64),
      2,
      num_kept,
    )
    assert found[layer].tolist() == expected
  with pytest.raises(ValueError, match="more than max_sets=3"):
    compress.enumerate_keep(
      case.model, case.params, samples, num_kept, max_sets=3
    )


@pytest.mark.parametrize(
  "keep, message",
  [
    ([[0, 1]], "each of L=2 layers.*got 1: a selection of another model"),
    ([[0, 1], [0]], "got 1 in layer 1, num_selected=2"),
    ([[0, 1], [2, 2]], r"different experts in \[0, 4\).*\[2, 2\] in layer 1"),
    ([[0, 1], [2, 4]], r"\[2, 4\] in layer 1"),
    ([[0, 1], [0.0, 1.0]], "in layer 1"),
    (None, "keep must be ids"),
  ],
)
def test_bad_selections_are_refused(case, keep, message):
  for method in (compress.prune, compress.reroute):
    with pytest.raises(ValueError, match=message) as error:
      method(case.model, case.params, keep)
    assert "\n" not in str(error.value)


def test_a_dense_model_has_nothing_to_prune(case):
  dense, params = models.merge(
    case.model, case.params, np.full(4, 0.25, np.float32)
  )
  with pytest.raises(ValueError, match="stacked experts to be pruned"):
    compress.prune(dense, params, [[0], [0]])
  with pytest.raises(ValueError, match="stacked experts to be calibrated"):
    compress.calibrate(dense, params, [np.zeros((1, 2), np.int32)])
