"""Whole fine-tunes as experts against averages of their files in NumPy."""

import json

import hf_folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models
from tanbr_jax.models.fine_tunes import BASE, Variants

NAME = "qwen3"
NORM, QUERY = "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"
BASE_TENSORS = hf_folders.tensors(NAME)
# One in which all differs, one with two tensors of its own.
ALL = hf_folders.tensors(NAME, seed=1)
FEW = BASE_TENSORS | {key: ALL[key] + 0.5 for key in (NORM, QUERY)}


def write(folder, **given):
  return hf_folders.write(folder, NAME, **given)


@pytest.fixture
def folders(tmp_path):
  """The base, and E = 3 variants: all, few, and the base itself."""
  base = write(tmp_path / "base")
  variants = (
    write(tmp_path / "all", arrays=ALL, shards=2),
    write(tmp_path / "few", arrays=FEW),
  )
  return base, [*variants, base]


def test_a_merge_is_the_average_of_the_files(folders, tmp_path):
  base, paths = folders
  model, params = models.from_finetunes(base, paths)
  tensors = (ALL, FEW, BASE_TENSORS)
  weights = np.float32([0.2, 0.5, 0.3])
  for place, row in enumerate((*np.eye(3, dtype=np.float32), weights)):
    dense, merged = models.merge(model, params, jnp.array(row))
    # It is written like the base.
    models.save_pretrained(dense, merged, tmp_path / f"out_{place}")
    found = hf_folders.read(tmp_path / f"out_{place}")
    assert found.keys() == BASE_TENSORS.keys()
    for key, (dtype, shape, data) in found.items():
      stacked = np.stack([one[key] for one in tensors]).astype(np.float64)
      expected = np.tensordot(row.astype(np.float64), stacked, 1)
      array = np.frombuffer(data, np.float32).reshape(shape)
      # Sums of three products of values below 5.
      np.testing.assert_allclose(array, expected, atol=2e-6, err_msg=key)
      assert dtype == "F32"
  again, _ = models.from_pretrained(tmp_path / "out_3")
  assert again == dense


def test_each_value_is_there_once_and_its_distance_is_told(folders):
  base, paths = folders
  model, params = models.from_finetunes(base, paths)
  # The second layer's queries, a part of the joined matrix: two values and the
  # base's. All else: one value and the base's.
  layer = params["params"]["layer_1"]
  assert layer["attention"]["query_key_value"].experts == (BASE, 0, 1)
  assert layer["attention"]["output"].experts == (BASE, 0)
  count = sum(array.size for array in BASE_TENSORS.values())
  joined = 20 * (4 + 2 + 2) * 6
  assert models.expert_bytes(params) == 4 * (2 * count + joined + 20)
  told = dict(model.differences)
  assert told.keys() == BASE_TENSORS.keys()
  for key, relative in told.items():
    norms = [np.linalg.norm(t[key] - BASE_TENSORS[key]) for t in (ALL, FEW)]
    norms = [*norms, 0.0] / np.linalg.norm(BASE_TENSORS[key])
    np.testing.assert_allclose(relative, norms, rtol=1e-5)
  # Where no expert is the base there is no need of its values.
  _, params = models.from_finetunes(base, paths[:1])
  kept = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Variants))
  assert all(one.experts == (0,) for one in kept)


def test_what_is_lost_in_the_cast_does_not_differ(tmp_path):
  near = {
    key: array * np.float32(1 + 2**-20) for key, array in BASE_TENSORS.items()
  }
  near[NORM] = BASE_TENSORS[NORM] * 2
  base, other = write(tmp_path / "base"), write(tmp_path / "near", arrays=near)
  model, _ = models.from_finetunes(base, [other], dtype="bfloat16")
  changed = dict(model.differences)
  # A step in the 20th bit changes the eighth of few values, if of any.
  assert changed.pop(NORM) == (1.0,)
  assert all(relative[0] < 2**-9 for relative in changed.values())
  assert len(changed) < len(near) // 2


def tokenizer(folder, *tokens, added=()):
  vocab = {token: index for index, token in enumerate(tokens)}
  added = [{"id": i, "content": content} for i, content in added]
  text = json.dumps({"model": {"vocab": vocab}, "added_tokens": added})
  (folder / "tokenizer.json").write_text(text)


def test_a_tokenizer_may_add_tokens_and_not_change_them(folders):
  base, paths = folders
  tokenizer(base, "a", "b")
  tokenizer(paths[0], "a", "b", added=[(2, "<end>")])
  models.from_finetunes(base, paths)
  tokenizer(paths[1], "a", "c")
  with pytest.raises(ValueError, match="few.*token 1 must be the base's 'b'"):
    models.from_finetunes(base, paths)


@pytest.mark.parametrize(
  "given, message",
  [
    (
      {"config": {"vocab_size": 38}},
      r"lm_head.weight' must be \(38, 20\), got \(37, 20\)",
    ),
    (
      {
        "config": {"vocab_size": 38},
        "arrays": ALL
        | {
          key: np.zeros((38, 20), np.float32)
          for key in ("model.embed_tokens.weight", "lm_head.weight")
        },
      },
      "config.json': vocab_size must be the base's 37, got 38",
    ),
    ({"config": {"rms_norm_eps": 1e-6}}, "norm_eps must be the base's 1e-05"),
    (
      {"arrays": {key: ALL[key] for key in ALL if key != NORM}},
      "lacks the tensor 'model.norm.weight'",
    ),
    (
      {"arrays": ALL | {NORM: np.full(20, np.inf, np.float32)}},
      "'model.norm.weight' holds values that are not finite",
    ),
  ],
)
def test_a_fine_tune_of_another_model_is_one_line(given, message, tmp_path):
  base, wrong = write(tmp_path / "base"), write(tmp_path / "wrong", **given)
  with pytest.raises(ValueError, match=message) as error:
    models.from_finetunes(base, [base, wrong])
  assert "\n" not in str(error.value) and "wrong" in str(error.value)


def test_paths_that_are_no_list_of_variants_are_one_line(tmp_path):
  base = write(tmp_path / "base")
  mixtral = hf_folders.write(tmp_path / "mixtral", "mixtral")
  adapter = tmp_path / "adapter"
  adapter.mkdir()
  (adapter / "adapter_config.json").write_text("{}")
  for of, paths, message in (
    (base, [], r"list of folders, got \[\]"),
    (base, str(base), "list of folders, got '"),
    (base, [tmp_path / "none"], "there is no folder '.*none'"),
    (base, [adapter, mixtral], "adapters, got .*adapter' beside .*mixtral'"),
    (mixtral, [mixtral], "base must be dense, got num_experts=5 in .*mixtral"),
    (base, [mixtral], "model_type must be the base's 'qwen3', got 'mixtral'"),
  ):
    with pytest.raises(ValueError, match=message) as error:
      models.from_finetunes(of, paths)
    assert "\n" not in str(error.value)
