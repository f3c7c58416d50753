"""The command that merges a checkpoint; here for the folders of these cases."""

import dataclasses
import json

import hf_folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from experiments.merge_checkpoint import command, costs, sources, synthetic
from tanbr_jax import models
from tanbr_jax.models.huggingface import reading
from tanbr_jax.online import trace
from tanbr_jax.online.trace import Trace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return hf_folders.write(tmp_path_factory.mktemp("moe") / "in", "mixtral")


@pytest.fixture(scope="module")
def state(tmp_path_factory):
  """A run of 2 seeds and 8 rounds of 5 experts: expert t % 5 in round t."""
  weights = np.eye(5, dtype=np.float32)[np.arange(8) % 5]
  shapes = {
    field.name: np.zeros((2, 8), np.float32)
    for field in dataclasses.fields(Trace)
  }
  shapes |= {
    "seeds": np.arange(2),
    "seconds": np.ones(1),
    "chunk_rounds": np.array([8]),
    "aux": {},
    "merge_weights": np.stack([weights, weights[::-1]]),
  }
  folder = tmp_path_factory.mktemp("state")
  other = {**shapes, "merge_weights": np.zeros((2, 8, 3), np.float32)}
  trace.save(
    folder / "trace.npz",
    {"tanbr": Trace(**shapes), "other": Trace(**other)},
  )
  return folder


def test_usage_alignment_and_scale(folder, tmp_path, capsys):
  ids = np.random.default_rng(0).integers(0, 37, 48)
  np.save(tmp_path / "ids.npy", ids)
  output = tmp_path / "out"
  command.run(
    command.Settings(
      checkpoint=str(folder),
      output=str(output),
      usage=True,
      text=str(tmp_path / "ids.npy"),
      length=12,
      scale="per_dimension",
      align=True,
    ),
    progress=False,
  )
  # The same, step by step.
  model, params = models.from_pretrained(folder)
  ids = ids.reshape(4, 12)
  record = json.loads((output / "merge.json").read_text())
  weights = jnp.asarray(record["merge_weights"], jnp.float32)
  np.testing.assert_allclose(weights, usage(model, params, ids), atol=1e-6)
  aligned = models.align_experts(
    model, params, reference=np.argmax(weights, axis=1).tolist()
  )
  _, merged = models.merge(model, aligned, weights)
  scaled = models.match_scale(model, aligned, merged, ids)
  dense, found = models.from_pretrained(output)
  assert dense.origin.family == "mistral"
  for layer in ("layer_0", "layer_1"):
    ours, theirs = (
      p["params"][layer]["experts"]["stack"] for p in (found, scaled)
    )
    np.testing.assert_allclose(ours.w_in, theirs.w_in, rtol=1e-6)
    np.testing.assert_allclose(ours.w_out, theirs.w_out, rtol=1e-6)
  # What the folders hold is what the table says.
  printed = capsys.readouterr().out
  for side, where in (("before", folder), ("after", output)):
    tensors = hf_folders.read(where)
    size = sum(len(data) for _, _, data in tensors.values())
    assert record[f"{side}/bytes"] == size
    assert record[f"{side}/parameters"] == size // 4
    assert f"| {size:,} |" in printed


def usage(model, params, ids):
  """Counts of the router's own choices."""
  look = Partial(lambda layer, output: layer.routing.expert_ids)
  _, seen = jax.jit(lambda p, i: model.apply(p, i, observe=look))(
    params, ids.astype(np.int32)
  )
  shares = [np.bincount(np.ravel(one), minlength=5) for one in seen]
  return np.stack(shares) / seen[0].size


def test_weights_of_a_finished_run(folder, state, tmp_path):
  command.run(
    command.Settings(
      checkpoint=str(folder),
      output=str(tmp_path / "out"),
      state=str(state),
      method="tanbr",
    ),
    progress=False,
  )
  record = json.loads((tmp_path / "out" / "merge.json").read_text())
  # The last two of eight rounds: experts 1, 2 of one seed, 1, 0 of the other.
  assert record["merge_weights"] == [0.25, 0.5, 0.25, 0, 0]
  assert record["method"] == "tanbr"


def test_operations_of_a_token(folder):
  model, _ = models.from_pretrained(folder)
  # D 20, four heads and two of keys and values of width 6, F 13, 2 of 5
  # experts, 37 tokens, two layers.
  attention = 20 * 6 * (4 + 2 + 2) + 4 * 6 * 20
  layer = attention + 20 * 5 + 2 * 3 * 20 * 13
  assert costs.costs(model)["flops_per_token"] == 2 * (2 * layer + 20 * 37)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"weights": ""}, "one of weights, usage and state"),
    ({"usage": True}, "got .'weights', 'usage'."),
    ({"scale": "both"}, "scale must be one of"),
    ({"scale": "scalar"}, "need calibration text, got text=''"),
    ({"text": "x.npy"}, "alone read calibration text"),
    ({"method": "tanbr"}, "method needs state"),
    ({"length": 0}, "length must be"),
    ({"weights": "1,2"}, r"float64\[2\] for E=5, L=2"),
    ({"weights": "a,b"}, "comma list of numbers, got weights='a,b'"),
    ({"weights": "1,1,0,0,0"}, "sum 2"),
    ({"weights": "none.npy"}, "'none.npy' cannot be read"),
    ({"checkpoint": "nowhere"}, "no file 'nowhere/config.json'"),
  ],
)
def test_mistakes_cost_one_line(folder, tmp_path, changes, message):
  fields = {
    "checkpoint": str(folder),
    "output": str(tmp_path / "out"),
    "weights": ".2,.2,.2,.2,.2",
    **changes,
  }
  with pytest.raises(ValueError, match=message) as error:
    command.run(command.Settings(**fields), progress=False)
  assert "\n" not in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_mistakes_of_a_run_and_of_tokens(folder, state, tmp_path):
  with pytest.raises(ValueError, match="trace.npz.*finished run"):
    sources.played_weights(str(tmp_path), "tanbr", num_experts=5)
  with pytest.raises(ValueError, match="got 'tambr', did you mean 'tanbr'"):
    sources.played_weights(str(state), "tambr", num_experts=5)
  with pytest.raises(ValueError, match="played 3 experts, the checkpoint.* 5"):
    sources.played_weights(str(state), "other", num_experts=5)

  def read(array):
    np.save(tmp_path / "ids.npy", array)
    return sources.read_ids(
      str(tmp_path / "ids.npy"),
      folder,
      vocab_size=37,
      length=4,
      num_sequences=3,
    )

  with pytest.raises(ValueError, match="float64"):
    read(np.ones(9))
  with pytest.raises(ValueError, match=r"in \[0, 37\), got 0 to 37"):
    read(np.arange(38))
  with pytest.raises(ValueError, match="two tokens or more, got 1"):
    read(np.arange(1))
  # Evenly spaced: the first begins the text, the last ends it.
  expected = [[0, 1, 2, 3], [5, 6, 7, 8], [11, 12, 13, 14]]
  np.testing.assert_array_equal(read(np.arange(15)), expected)
  with pytest.raises(ValueError, match="tokenizer.json"):
    sources.read_ids(
      str(folder / "config.json"),
      folder,
      vocab_size=37,
      length=4,
      num_sequences=3,
    )


def test_text_is_read_by_the_checkpoints_tokenizer(folder, tmp_path):
  tokenizers = pytest.importorskip("tokenizers")
  words = {word: i for i, word in enumerate("a b c d [unknown]".split())}
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(words, unk_token="[unknown]")
  )
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  tokenizer.save(str(tmp_path / "tokenizer.json"))
  texts = tmp_path / "texts"
  (texts / "more").mkdir(parents=True)
  (texts / "1.txt").write_text("a b c")
  (texts / "more" / "2.txt").write_text("d c x")
  (texts / ".hidden").write_text("d d d d")
  found = sources.read_ids(
    str(texts), tmp_path, vocab_size=37, length=3, num_sequences=9
  )
  np.testing.assert_array_equal(found, [[0, 1, 2], [3, 2, 4]])
  (texts / "3.txt").write_bytes(b"\xff\xfe\x00")
  with pytest.raises(ValueError, match="3.txt' cannot be read"):
    sources.read_ids(
      str(texts), tmp_path, vocab_size=37, length=3, num_sequences=9
    )


def test_a_synthetic_checkpoint_is_whole_and_no_larger_than_asked(tmp_path):
  size = synthetic.write(tmp_path / "m", gigabytes=0.17, model_dim=512)
  found = reading.check(tmp_path / "m")
  # A layer is 8 experts of 3 x 512 x 1792 and about 0.7 million more, two bytes
  # each: 45 million. Both tables are 2 x 32000 x 512 x 2 = 66 million.
  assert found.model.config.num_layers == 2
  assert size == sum(entry.nbytes for entry in found.entries.values())
  assert 0.15e9 < size < 0.17e9
  with pytest.raises(ValueError, match="model_dim=100"):
    synthetic.write(tmp_path / "n", gigabytes=1, model_dim=100)
