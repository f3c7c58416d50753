"""Adapters against PEFT itself, tensor by tensor; skipped without it."""

import hf_folders
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
record_adapters = pytest.importorskip("record_adapters")
pytestmark = pytest.mark.filterwarnings("default")
SEED = 5


def arrays_of(model):
  """Every tensor of a merged model."""
  return {k: v.detach().numpy() for k, v in model.state_dict().items()}


def check(dense, merged, expected, folder):
  """What is written of a merge, against tensors."""
  models.save_pretrained(dense, merged, folder)
  for key, (_, shape, data) in hf_folders.read(folder).items():
    found = np.frombuffer(data, np.float32).reshape(shape)
    # Values of up to 10, sums of few terms in another order.
    np.testing.assert_allclose(found, expected[key], atol=1e-5, err_msg=key)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "mistral"))
    for name in record_adapters.ADAPTERS
  ],
)
def test_merges_are_averages_of_what_peft_merges(name, tmp_path):
  base, paths, theirs = tmp_path / "base", [], []
  for index, fields in enumerate(record_adapters.ADAPTERS[name]):
    paths.append(tmp_path / f"adapter_{index}")
    record_adapters.make(name, fields, base, paths[-1], SEED + index)
    merged = record_adapters.merged(name, base, paths[-1])
    theirs.append(arrays_of(merged))
  model, params = models.from_finetunes(base, paths)
  mixed = np.random.RandomState(0).dirichlet(np.ones(len(paths)))
  for place, weights in enumerate((*np.eye(len(paths)), mixed)):
    expected = {
      key: np.tensordot(weights, np.stack([one[key] for one in theirs]), 1)
      for key in theirs[0]
    }
    weights = jnp.array(weights, jnp.float32)
    dense, merged = models.merge(model, params, weights)
    check(dense, merged, expected, tmp_path / f"out_{place}")


def test_weights_are_those_of_peft_s_weighted_adapter(tmp_path):
  # PEFT's kind "cat" is the exact sum of products; "linear" adds up factors of
  # different adapters and has their mixed products besides.
  base, paths = tmp_path / "base", [tmp_path / "a", tmp_path / "b"]
  for index, path in enumerate(paths):
    fields = {"r": 2 + index, "lora_alpha": 3, "target_modules": "all-linear"}
    record_adapters.make("qwen3", fields, base, path, SEED + index)
  model = record_adapters.record_fixtures.make("qwen3", base, hf_folders.SEED)
  theirs = peft.PeftModel.from_pretrained(model, paths[0], adapter_name="a")
  theirs.load_adapter(paths[1], adapter_name="b")
  theirs.add_weighted_adapter(
    ["a", "b"], [0.3, 0.9], "both", combination_type="cat"
  )
  theirs.set_adapter("both")
  expected = arrays_of(theirs.merge_and_unload())
  ours, params = models.from_finetunes(base, paths)
  dense, merged = models.merge(ours, params, jnp.array([0.3, 0.9]))
  check(dense, merged, expected, tmp_path / "out")
