"""Layouts, shards and types in; the same bytes out; errors before any array."""

import dataclasses
import json

import hf_folders
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tanbr_jax import models
from tanbr_jax.models.huggingface import placing, tensor_file
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import REGISTRY
from tanbr_jax.models.huggingface.folder import Stored

WITH_OTHER = [
  path.stem
  for path in sorted(hf_folders.FIXTURES.glob("*.json"))
  if "other" in json.loads(path.read_text())
]


def assert_same(ours, theirs):
  ours, theirs = (
    jax.tree.leaves_with_path(ours),
    jax.tree.leaves_with_path(theirs),
  )
  assert len(ours) == len(theirs)
  for (path, one), (other_path, other) in zip(ours, theirs, strict=True):
    assert path == other_path
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", WITH_OTHER)
def test_the_other_layout_is_that_of_transformers(name, tmp_path):
  """Written by us with the digests of their tensors, and read again."""
  model, params = models.from_pretrained(
    hf_folders.write(tmp_path / "one", name)
  )
  other = hf_folders.described(name)["other"]
  layouts = REGISTRY[model.origin.family].layouts
  origin = dataclasses.replace(
    model.origin,
    layout=next(each for each in layouts if each != model.origin.layout),
    tensors=tuple(Stored(key, "F32", "model.safetensors") for key in other),
  )
  fused = dataclasses.replace(model, origin=origin)
  models.save_pretrained(fused, params, tmp_path / "two")
  written = hf_folders.read(tmp_path / "two")
  assert {
    key: hf_folders.digest(value[2]) for key, value in written.items()
  } == other
  again, same = models.from_pretrained(tmp_path / "two")
  assert again == model and again.origin.layout == origin.layout
  assert_same(same, params)


@pytest.mark.parametrize("name", ["ernie4_5_moe", "gpt_oss"])
def test_an_unchanged_model_is_written_as_it_was(name, tmp_path):
  source = hf_folders.write(tmp_path / "source", name, shards=3)
  (source / "tokenizer.json").write_text("{}")
  model, params = models.from_pretrained(source)
  models.save_pretrained(model, params, tmp_path / "copy")
  names = {path.name for path in source.iterdir()}
  assert {path.name for path in (tmp_path / "copy").iterdir()} == names
  assert hf_folders.read(tmp_path / "copy") == hf_folders.read(source)
  index = "model.safetensors.index.json"
  places = [
    json.loads((folder / index).read_text())["weight_map"]
    for folder in (source, tmp_path / "copy")
  ]
  assert places[0] == places[1]
  text = (source / "config.json").read_text()
  assert (tmp_path / "copy" / "config.json").read_text() == text


def narrow(arrays):
  return {k: a.astype(ml_dtypes.bfloat16) for k, a in arrays.items()}


def test_a_cast_is_rounding_and_comes_back(tmp_path):
  arrays = hf_folders.tensors("mixtral")
  wide = hf_folders.write(tmp_path / "wide", "mixtral")
  model, params = models.from_pretrained(wide, dtype=jnp.bfloat16)
  assert model.config.dtype == "bfloat16"
  # A folder of the rounded tensors holds the same parameters.
  source = hf_folders.write(
    tmp_path / "narrow", "mixtral", config={"dtype": "bfloat16"}
  )
  hf_folders.write_tensors(source / "model.safetensors", narrow(arrays), "BF16")
  other, same = models.from_pretrained(source)
  assert other == model and other.config.dtype == "bfloat16"
  router = ["params", "layer_0", "experts", "router", "kernel"]
  kernel, rounded = params, same
  for key in router:
    kernel, rounded = kernel[key], rounded[key]
  # Routers stay as they are in the file, in float32.
  gate = "model.layers.0.block_sparse_moe.gate.weight"
  np.testing.assert_array_equal(kernel, arrays[gate].T)
  np.testing.assert_array_equal(
    rounded, narrow(arrays)[gate].T.astype(np.float32)
  )
  table = same["params"]["embedding"]
  assert_same(params["params"]["embedding"], table)
  # Written as read, and, after a cast, in the new type.
  models.save_pretrained(other, same, tmp_path / "back")
  assert hf_folders.read(tmp_path / "back") == hf_folders.read(source)
  models.save_pretrained(model, params, tmp_path / "cast")
  config = json.loads((tmp_path / "cast" / "config.json").read_text())
  assert config["dtype"] == "bfloat16"
  assert {one[0] for one in hf_folders.read(tmp_path / "cast").values()} == {
    "BF16"
  }


def test_known_and_unneeded_tensors_are_told_and_left_out(tmp_path):
  arrays = hf_folders.tensors("glm4_moe")
  extra = {
    "model.layers.2.eh_proj.weight": np.zeros((2, 3), np.float32),
    "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(2, np.float32),
  }
  folder = hf_folders.write(tmp_path / "glm", "glm4_moe", arrays=arrays | extra)
  model, params = models.from_pretrained(folder)
  assert model.origin.unused == tuple(extra)
  models.save_pretrained(model, params, tmp_path / "copy")
  assert hf_folders.read(tmp_path / "copy").keys() == arrays.keys()


@pytest.mark.parametrize(
  ("name", "spelling"),
  [
    ("mixtral", {"num_local_experts": None, "num_experts": 5}),
    ("qwen3_moe", {"num_local_experts": 5, "num_experts": None}),
    (
      "mistral",
      {
        "rope_parameters": None,
        "rope_theta": 50.0,
        "rope_scaling": {"type": "linear", "factor": 2.0},
      },
    ),
    ("mixtral", {"dtype": None, "torch_dtype": "float32"}),
    ("mixtral", {"dtype": None}),
  ],
)
def test_older_spellings_are_read(name, spelling, tmp_path):
  model, _ = models.from_pretrained(hf_folders.write(tmp_path / "new", name))
  folder = hf_folders.write(tmp_path / "old", name, config=spelling)
  assert models.from_pretrained(folder)[0] == model


# What files on the hub say besides, at the values that change nothing.
HARMLESS = {
  "dots1": {"moe_layer_freq": 1, "scoring_func": "noaux_tc", "ep_size": 1},
  "ernie4_5_moe": {
    "moe_capacity": [64, 64, 64],
    "moe_use_aux_free": True,
    "multi_token_pred_lambda": 0.3,
    "num_nextn_predict_layers": 1,
    "rope_scaling": None,
  },
  "glm4_moe": {"num_nextn_predict_layers": 1, "rope_scaling": None},
  "gpt_oss": {"experts_per_token": 2, "initial_context_length": 4096},
  "llama": {"pretraining_tp": 1, "attention_dropout": 0.0},
  "minimax_m2": {
    "attn_type_list": [1, 1],
    "layernorm_mlp_beta": 1.0,
    "mtp_transformer_layers": 1,
    "num_mtp_modules": 3,
    "qk_norm_type": "per_layer",
    "scoring_func": "sigmoid",
    "shared_intermediate_size": 0,
    "use_qk_norm": True,
    "use_routing_bias": True,
  },
  "mixtral": {"router_aux_loss_coef": 0.02, "unsloth_version": "2025.1"},
  "phimoe": {"auto_map": {"AutoConfig": "x"}, "input_jitter_noise": 0.01},
  "qwen3_moe": {"max_window_layers": 48, "output_router_logits": True},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_keys_that_change_nothing_are_read_over(name):
  config = hf_folders.described(name)["config"]
  family = REGISTRY[config["model_type"]]

  def read(raw):
    keys = ConfigKeys(raw, "config.json")
    found = family.config(keys)
    keys.check_rest()
    return found

  assert read(config | HARMLESS[name]) == read(config)


def test_an_absent_window_is_the_default_of_the_family():
  for config, window in (({}, 4096), ({"sliding_window": None}, None)):
    raw = hf_folders.described("mistral")["config"]
    del raw["sliding_window"]
    keys = ConfigKeys(raw | config, "config.json")
    assert REGISTRY["mistral"].config(keys).attention.window == window


REFUSED_KEYS = [
  ("mixtral", {"hidden_act": "tanh"}, "hidden_act='tanh'"),
  ("mixtral", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
  ("mixtral", {"quantization_config": {"quant_method": "fp8"}}, "'fp8'"),
  ("mixtral", {"model_type": "deepseek_v3"}, r"'deepseek_v3' .*MLA"),
  ("mixtral", {"model_type": "t5"}, "'t5' .*encoder-decoder"),
  ("mixtral", {"model_type": "mamba"}, "model_type='mamba'"),
  ("mixtral", {"model_type": None}, "model_type=None"),
  ("mixtral", {"hidden_size": None}, "hidden_size must be a positive integer"),
  ("mixtral", {"hidden_size": "20"}, "hidden_size .* got '20'"),
  ("mixtral", {"rms_norm_eps": "small"}, "rms_norm_eps='small'"),
  ("mixtral", {"dtype": "float8_e4m3fn"}, "dtype='float8_e4m3fn'"),
  ("llama", {"rope_parameters": {"rope_type": "axial"}}, "rope_type='axial'"),
  (
    "llama",
    {"rope_parameters": {"rope_type": "default", "mrope_section": [1]}},
    "'mrope_section'",
  ),
  ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "must be a number"),
  ("mixtral", {"rms_norm_eps": None}, "rms_norm_eps must be a number"),
  ("gpt_oss", {"rope_parameters": None}, "rope_parameters must say"),
  ("gpt_oss", {"swiglu_limit": 5.0}, "swiglu_limit=5.0"),
  ("gpt_oss", {"layer_types": ["chunked_attention"] * 2}, "layer_types="),
  ("ernie4_5_moe", {"moe_norm_min": 0.1}, "moe_norm_min .* 0.1"),
  ("phimoe", {"num_experts_per_tok": 3}, "num_selected=3"),
]


@pytest.mark.parametrize(("name", "config", "message"), REFUSED_KEYS)
def test_refuses_a_config_that_it_does_not_understand(
  name, config, message, tmp_path
):
  folder = hf_folders.write(tmp_path / "one", name, config=config)
  refuses(folder, message)


def refuses(folder, message, **given):
  """One line, before any array is made."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(placing, "fill", lambda *args: pytest.fail("too late"))
    with pytest.raises(ValueError, match=message) as caught:
      models.from_pretrained(folder, **given)
  assert "\n" not in str(caught.value)


def cut(path, size):
  path.write_bytes(path.read_bytes()[:size])


def test_refuses_files_that_are_not_whole(tmp_path):
  refuses(tmp_path, "there is no file .*config.json")
  one = hf_folders.write(tmp_path / "one", "llama")
  file = one / "model.safetensors"
  whole = file.read_bytes()
  for size, message in (
    (4, "cut or corrupt: 4 bytes"),
    (100, "cut or corrupt: 100 bytes cannot hold a header"),
    (len(whole) - 1, "tensors end at byte"),
  ):
    cut(file, size)
    refuses(one, f"model.safetensors' is {message}" if size == 100 else message)
    file.write_bytes(whole)
  file.write_bytes(whole[:8] + b"[" + whole[9:])
  refuses(one, "model.safetensors' is cut or corrupt: its header is damaged")
  # Two tensors at one place.
  header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
  first, second = (f"model.layers.{i}.input_layernorm.weight" for i in (0, 1))
  header[first]["data_offsets"] = header[second]["data_offsets"]
  text = json.dumps(header).encode()
  data = whole[8 + int.from_bytes(whole[:8], "little") :]
  file.write_bytes(len(text).to_bytes(8, "little") + text + data)
  refuses(one, "begins at byte")
  file.write_bytes(whole.replace(b'"F32"', b'"F99"', 1))
  refuses(one, "unknown type 'F99'")
  file.unlink()
  refuses(one, "no model.safetensors and no model.safetensors.index.json")
  (one / "config.json").write_text("{")
  refuses(one, "config.json' cannot be read")
  shards = hf_folders.write(tmp_path / "shards", "llama", shards=2)
  (shards / "model-00002-of-00002.safetensors").unlink()
  refuses(shards, "names 'model-00002-of-00002.safetensors', which is missing")
  index = shards / "model.safetensors.index.json"
  index.write_text("{}")
  refuses(shards, "has no weight_map")


def test_refuses_tensors_that_are_not_as_they_must_be(tmp_path):
  arrays = hf_folders.tensors("qwen3_moe")
  key = "model.layers.1.mlp.experts.3.up_proj.weight"
  for change, message in (
    ({key: None}, rf"lacks the tensor '{key}' of shape \(7, 20\) \(1 missing"),
    ({key: arrays[key].T}, rf"'{key}' must be \(7, 20\), got \(20, 7\)"),
    ({"model.extra": arrays[key]}, r"holds 'model.extra' of shape \(7, 20\)"),
    ({key: arrays[key].astype(np.int32)}, f"{key}.*got int32"),
  ):
    changed = {k: a for k, a in (arrays | change).items() if a is not None}
    folder = hf_folders.write(tmp_path / "one", "qwen3_moe", arrays=changed)
    if "int32" in message:
      data = (folder / "model.safetensors").read_bytes()
      place = data.index(f'"{key}"'.encode())
      at = data.index(b"F32", place)
      (folder / "model.safetensors").write_bytes(
        data[:at] + b"I32" + data[at + 3 :]
      )
    refuses(folder, message)
  folder = hf_folders.write(tmp_path / "one", "qwen3_moe")
  refuses(folder, "dtype='int8'", dtype="int8")


def test_refuses_to_write_what_it_could_not_read_back(tmp_path):
  model, params = models.from_pretrained(
    hf_folders.write(tmp_path / "one", "mixtral")
  )
  there = tmp_path / "there"
  there.mkdir()
  (there / "file").write_text("mine")
  weights = np.full(5, 0.2, np.float32)
  dense, merged = models.merge(model, params, weights)
  alone = dataclasses.replace(model, origin=None)
  for given, path, message in (
    ((model, params), there, "there' must be a new or an empty folder"),
    ((alone, params), tmp_path / "new", "origin=None"),
    ((dense, merged), tmp_path / "new", "num_experts=None for 5"),
    ((model, merged), tmp_path / "new", "params must have layer_"),
  ):
    with pytest.raises(ValueError, match=message):
      models.save_pretrained(*given, path)
  assert not (tmp_path / "new").exists()
  assert [path.name for path in there.iterdir()] == ["file"]


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
  model, params = models.from_pretrained(
    hf_folders.write(tmp_path / "one", "llama")
  )

  def full(*args):
    raise OSError(28, "no space")

  monkeypatch.setattr(tensor_file, "write", full)
  with pytest.raises(OSError, match="no space"):
    models.save_pretrained(model, params, tmp_path / "new")
  assert [path.name for path in tmp_path.iterdir()] == ["one"]
