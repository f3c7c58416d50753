"""Adapters as experts against what PEFT merges into the base."""

import functools

import adapter_folders
import hf_cases
import hf_folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models
from tanbr_jax.models.huggingface import leaves


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, ids, mask):
  return model.apply(params, ids, attention_mask=mask)


def as_arrays(params):
  return {k: np.asarray(v) for k, v in leaves.by_name(params).items()}


# Every kind of target, ranks and scales by module, biases of three kinds and
# whole modules; a tied head, and an embedding and a head of their own.
@pytest.mark.parametrize("name", adapter_folders.CASES)
def test_one_hot_weights_are_the_adapter_that_peft_merges(name, tmp_path):
  base, paths = adapter_folders.write_all(tmp_path, name)
  model, params = models.from_finetunes(base, paths)
  expected = hf_folders.adapter_logits(name)
  ids, mask = hf_cases.inputs(hf_folders.SEED)
  is_token = mask.astype(bool)
  each = []
  for row, theirs in zip(np.eye(len(paths)), expected, strict=True):
    weights = jnp.array(row, jnp.float32)
    dense, merged = models.merge(model, params, weights)
    found = logits(dense, merged, ids, mask)
    # Values of up to 20, whose errors of 2^-24 two layers with matrices several
    # times the usual size make up to 1,000 times as large.
    np.testing.assert_allclose(found[is_token], theirs[is_token], atol=1e-3)
    each.append(as_arrays(merged))
  # In between it is the average of these, tensor by tensor.
  weights = np.random.RandomState(0).dirichlet(np.ones(len(paths)))
  weights = weights.astype(np.float32)
  _, merged = models.merge(model, params, jnp.array(weights))
  for key, found in as_arrays(merged).items():
    stacked = np.stack([one[key] for one in each]).astype(np.float64)
    expected = np.tensordot(weights.astype(np.float64), stacked, 1)
    # Values of up to 10, sums of few terms.
    np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=key)


def test_factors_stay_factors_and_what_none_changes_is_there_once(tmp_path):
  base, paths = adapter_folders.write_all(tmp_path, "mistral")
  model, params = models.from_finetunes(base, paths)
  assert model.names == ("adapter_0", "adapter_1")
  assert model.config.num_experts == 2 and model.config.moe_layers == (0, 1)
  plain, whole = models.from_pretrained(base)
  assert model.dense == plain
  # Embedding and head [37, 20]: the base's and both adapters', as one has other
  # values under its product of rank 3. Queries [20, 24] of the joined [20, 48]
  # in two layers: the base's and a product of rank 3. The second layer's w_in
  # [20, 13]: rank 2.
  tables = 2 * (3 * 37 * 20 + 3 * (37 + 20))
  queries = 2 * (20 * 48 + 3 * (20 + 24))
  block = 20 * 13 + 2 * (20 + 13)
  assert models.expert_bytes(params) == 4 * (tables + queries + block)
  changed = {key for key, _ in model.differences}
  assert changed == {
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
  }
  # How far: by the definition, W + alpha / r * B A.
  tensors = adapter_folders.tensors("mistral", 0)
  prefix = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
  product = tensors[prefix + "B.weight"] @ tensors[prefix + "A.weight"]
  key = "model.layers.1.self_attn.q_proj.weight"
  size = np.linalg.norm(hf_folders.tensors("mistral")[key])
  expected = 8 / 3 * np.linalg.norm(product) / size
  found = dict(model.differences)[key]
  np.testing.assert_allclose(found, (expected, 0.0), rtol=1e-5)
  for name in ("output", "query_key_value"):
    of_base = whole["params"]["layer_0"]["attention"][name]
    ours = params["params"]["layer_0"]["attention"][name]
    ours = ours.values[0] if name == "query_key_value" else ours
    np.testing.assert_array_equal(ours, of_base)


def test_an_adapter_that_adds_nothing_changes_nothing(tmp_path):
  arrays = {
    key: np.zeros_like(array) if "lora_B" in key else array
    for key, array in adapter_folders.tensors("llama", 0).items()
  }
  base = hf_folders.write(tmp_path / "base", "llama")
  path = adapter_folders.write(tmp_path / "none", "llama", 0, arrays=arrays)
  model, params = models.from_finetunes(base, [path], dtype="bfloat16")
  assert model.differences == () and model.config.dtype == "bfloat16"
  # Nor does the base, as one of the experts.
  other = adapter_folders.write(tmp_path / "other", "llama", 1)
  paths = [path, other, base]
  model, params = models.from_finetunes(base, paths, dtype="bfloat16")
  _, merged = models.merge(model, params, jnp.array([0.3, 0.0, 0.7]))
  _, plain = models.from_pretrained(base, dtype="bfloat16")
  for ours, theirs in zip(
    jax.tree.leaves(merged), jax.tree.leaves(plain), strict=True
  ):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


def with_arrays(**changes):
  """The first adapter's tensors with some in another place; None takes one."""
  arrays = adapter_folders.tensors("llama", 0)
  for name, array in changes.items():
    arrays.pop(name, None)
    if array is not None:
      arrays[name] = np.float32(array)
  return {"arrays": arrays}


@pytest.mark.parametrize(
  "given, message",
  [
    ({"config": {"use_dora": True}}, "use_dora=True is not understood"),
    ({"config": {"peft_type": "IA3"}}, "peft_type must be 'LORA', got 'IA3'"),
    ({"config": {"init_lora_weights": "pissa"}}, "init_lora_weights.*'pissa'"),
    ({"config": {"target_parameters": ["x"]}}, r"target_parameters=\['x'\]"),
    ({"config": {"layer_replication": [[0, 1]]}}, "layer_replication"),
    ({"config": {"r": 0}}, "r=0, lora_alpha=5 for 'model.layers.0"),
    ({"config": {"lora_alpha": None}}, "r=3, lora_alpha=None"),
    ({"config": {"r": 4}}, r"q_proj|down_proj.*must be \(4, .*got \(3, "),
    (with_arrays(**{Q + "A.weight": None}), "_B.weight' and lacks .*_A.weight"),
    (with_arrays(**{Q + "B.weight": None}), "_A.weight' and lacks .*_B.weight"),
    (
      with_arrays(**{Q + "B.weight": np.zeros((20, 3))}),
      r"lora_B.weight' must be \(24, 3\), got \(20, 3\)",
    ),
    (
      with_arrays(**{Q + "magnitude_vector": np.zeros(24)}),
      "lora_magnitude_vector' is not understood",
    ),
    (
      with_arrays(**{"base_model.model.model.layers.7.mlp.x.lora_B.weight": 0}),
      "'model.layers.7.mlp.x.weight', which the base does not have",
    ),
    (
      with_arrays(**{"base_model.model.model.norm.lora_A.weight": 0}),
      r"must be for a matrix, got 'model.norm.weight' of shape \(24,\)",
    ),
    (
      with_arrays(**{"base_model.model.lm_head.weight": np.zeros((37, 24))}),
      "embedding and head are one tensor",
    ),
    (
      with_arrays(
        **{"base_model.model.model.embed_tokens.weight": np.zeros((38, 24))}
      ),
      r"embed_tokens.weight' must be \(37, 24\), got \(38, 24\)",
    ),
    (
      with_arrays(**{Q + "A.weight": np.full((3, 24), np.nan)}),
      "q_proj.weight' holds values that are not finite",
    ),
  ],
)
def test_what_is_more_than_lora_or_does_not_fit_is_one_line(
  given, message, tmp_path
):
  base = hf_folders.write(tmp_path / "base", "llama")
  path = adapter_folders.write(tmp_path / "wrong", "llama", 0, **given)
  with pytest.raises(ValueError, match=message) as error:
    models.from_finetunes(base, [path])
  text = str(error.value)
  assert "\n" not in text and str(path) in text


def test_an_adapter_without_its_file_is_one_line(tmp_path):
  base = hf_folders.write(tmp_path / "base", "llama")
  path = adapter_folders.write(tmp_path / "wrong", "llama", 0)
  (path / "adapter_model.safetensors").unlink()
  with pytest.raises(ValueError, match="no adapter_model.safetensors in"):
    models.from_finetunes(base, [path])
