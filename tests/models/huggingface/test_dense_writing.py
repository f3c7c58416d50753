"""Merged models as dense checkpoints, against what transformers computed."""

import functools
import json

import hf_cases
import hf_folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models

# Family of the dense form by case.
HOMES = {
  "mixtral": "mistral",
  "qwen3_moe": "qwen3",
  "flex_olmo": "olmo2",
  "glm4_moe": "glm4_moe",
  "dots1": "dots1",
  "ernie4_5_moe": "ernie4_5_moe",
  "olmoe": "olmoe",
  "gpt_oss": "gpt_oss",
  "granitemoe": "granite",
  "granitemoeshared": "granite",
  "minimax_m2": "minimax_m2",
}


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, ids, mask):
  return model.apply(params, ids, attention_mask=mask)


def merged(name, folder, weights=None, **options):
  model, params = models.from_pretrained(
    hf_folders.write(folder / name, name), **options
  )
  if weights is None:
    weights = jnp.asarray(hf_folders.expected(name)["weights"])
  return models.merge(model, params, weights)


def layer_weights(name):
  """[L, E] weights that differ between layers."""
  experts = len(hf_folders.expected(name)["weights"])
  layers = len(hf_folders.expected(name)["experts"])
  draws = np.random.RandomState(3).standard_exponential((layers, experts))
  return jnp.asarray(draws / draws.sum(1, keepdims=True), jnp.float32)


@pytest.mark.parametrize("name", HOMES)
def test_a_dense_form_computes_what_the_merged_model_does(name, tmp_path):
  model, params = merged(name, tmp_path)
  models.save_dense(model, params, tmp_path / "dense")
  config = json.loads((tmp_path / "dense" / "config.json").read_text())
  assert config["model_type"] == HOMES[name]
  home, read = models.from_pretrained(tmp_path / "dense")
  assert home.config.moe_layers == () or home.config.num_experts in (None, 1)
  ids, mask = hf_cases.inputs(hf_folders.SEED)
  ours = np.asarray(apply(home, read, ids, mask))[mask > 0]
  theirs = hf_folders.expected(name)["merged_logits"][mask > 0]
  # As in test_checkpoints: at most 10 after four layers in float32.
  np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


# A sister with dense layers of another width, and zero neurons, biases and a
# shared expert.
@pytest.mark.parametrize("name", ["qwen3_moe", "ernie4_5_moe"])
def test_layers_have_weights_of_their_own(name, tmp_path):
  model, params = merged(name, tmp_path, layer_weights(name))
  models.save_dense(model, params, tmp_path / "dense")
  inputs = hf_cases.inputs(hf_folders.SEED)
  home = models.from_pretrained(tmp_path / "dense")
  np.testing.assert_allclose(
    apply(*home, *inputs), apply(model, params, *inputs), atol=1e-4, rtol=0
  )


# Stacked and single experts, layers without any, a shared expert.
@pytest.mark.parametrize("name", ["gpt_oss", "ernie4_5_moe"])
def test_merging_while_reading_is_merging(name, tmp_path):
  weights = layer_weights(name)
  model, params = merged(name, tmp_path, weights)
  found, read = models.merge_pretrained(tmp_path / name, weights)
  assert found == model and found.origin == model.origin
  for ours, theirs in zip(
    jax.tree.leaves(read), jax.tree.leaves(params), strict=True
  ):
    # Sums of five products of size 10.
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
  with pytest.raises(ValueError, match=r"got float32\(3,\) for E=5"):
    models.merge_pretrained(tmp_path / name, jnp.ones(3))


def test_files_and_types_are_carried_over(tmp_path, monkeypatch):
  monkeypatch.setattr(
    "tanbr_jax.models.huggingface.dense_writing._SHARD", 20_000
  )
  folder = hf_folders.write(tmp_path / "mixtral", "mixtral")
  (folder / "tokenizer.json").write_text("{}")
  model, params = merged("mixtral", tmp_path, dtype="bfloat16")
  dense = tmp_path / "dense"
  models.save_dense(model, params, dense)
  assert (dense / "tokenizer.json").read_text() == "{}"
  found = hf_folders.read(dense)
  assert {dtype for dtype, _, _ in found.values()} == {"BF16"}
  # Files of at most so many bytes, and what they hold is indexed.
  sizes = [file.stat().st_size for file in dense.glob("*.safetensors")]
  assert len(sizes) > 1 and max(sizes) < 20_000
  _, read = models.from_pretrained(dense)
  for ours, theirs in zip(
    jax.tree.leaves(read), jax.tree.leaves(params), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
  ("name", "piece"), [("qwen2_moe", "shared expert"), ("phimoe", "sparsemixer")]
)
def test_what_no_dense_model_computes_is_refused(name, piece, tmp_path):
  model, params = merged(name, tmp_path)
  with pytest.raises(ValueError, match=f"{name} has no dense form.*{piece}"):
    models.save_dense(model, params, tmp_path / "dense")
  assert not (tmp_path / "dense").exists()


def test_a_model_with_experts_and_a_full_folder_are_refused(tmp_path):
  folder = hf_folders.write(tmp_path / "mixtral", "mixtral")
  model, params = models.from_pretrained(folder)
  with pytest.raises(ValueError, match="must be merged.*num_experts=5"):
    models.save_dense(model, params, tmp_path / "dense")
  with pytest.raises(ValueError, match="new or an empty folder"):
    models.save_dense(*merged("mixtral", tmp_path), folder)
  bare = models.Decoder(models.preset("tiny", num_experts=None))
  with pytest.raises(ValueError, match="origin=None"):
    models.save_dense(bare, {}, tmp_path / "dense")


def test_a_dense_model_is_written_as_itself(tmp_path):
  folder = hf_folders.write(tmp_path / "llama", "llama")
  model, params = models.from_pretrained(folder)
  models.save_dense(model, params, tmp_path / "copy")
  assert hf_folders.read(tmp_path / "copy") == hf_folders.read(folder)
