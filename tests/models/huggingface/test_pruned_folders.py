"""Pruned checkpoints in their own families' format."""

import functools
import json

import hf_cases
import hf_folders
import jax
import numpy as np
import pytest

from tanbr_jax import compress, models

# Cases with experts, of which two are cut out (one of each group of GLM's).
CASES = (
  "mixtral",
  "qwen2_moe",
  "qwen3_moe",
  "olmoe",
  "flex_olmo",
  "gpt_oss",
  "minimax_m2",
  "granitemoe",
  "granitemoeshared",
  "dots1",
  "phimoe",
  "ernie4_5_moe",
)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, ids, reroute=None):
  return model.apply(params, ids, reroute=reroute)


def read(name, folder):
  return models.from_pretrained(hf_folders.write(folder / name, name))


@pytest.mark.parametrize("name", CASES)
def test_a_pruned_folder_is_read_as_it_was_pruned(name, tmp_path):
  model, params = read(name, tmp_path)
  experts, layers = model.config.num_experts, len(model.config.moe_layers)
  keep = np.tile(np.delete(np.arange(experts), [0, 2]), (layers, 1))
  pruned, left = compress.prune(model, params, keep)
  models.save_pretrained(pruned, left, tmp_path / "out")
  again, found = models.from_pretrained(tmp_path / "out")
  assert again.config == pruned.config
  assert again.config.num_experts == experts - 2
  jax.tree.map(np.testing.assert_array_equal, found, left)
  before = json.loads((tmp_path / name / "config.json").read_text())
  after = json.loads((tmp_path / "out" / "config.json").read_text())
  changed = {key for key in before if before[key] != after[key]}
  assert len(changed) == 1 and "experts" in changed.pop()
  # Smaller by the experts' bytes and the routers'.
  stack = params["params"][f"layer_{model.config.moe_layers[0]}"]["experts"]
  own = [
    leaf.nbytes // experts
    for leaf in jax.tree.leaves((stack["router"], stack["stack"]))
    if experts in (leaf.shape[0], leaf.shape[-1])
  ]
  size = lambda folder: sum(  # noqa: E731
    len(data) for _, _, data in hf_folders.read(folder).values()
  )
  cut = size(tmp_path / name) - size(tmp_path / "out")
  assert cut == 2 * layers * sum(own)


def test_groups_and_a_correction_bias(tmp_path):
  """GLM-4.5's router: pruned and masked agree, uneven groups are refused."""
  # Two groups of three experts, one of which is cut out of each.
  folder = hf_folders.write(
    tmp_path / "in", "glm4_moe", config={"n_group": 2, "topk_group": 1}
  )
  model, params = models.from_pretrained(folder)
  groups = model.config.router.groups
  experts = model.config.num_experts
  layers = len(model.config.moe_layers)
  ids, _ = hf_cases.inputs(0)
  size = experts // groups.num_groups
  last = np.arange(size - 1, experts, size)
  keep = np.tile(np.delete(np.arange(experts), last), (layers, 1))
  pruned, left = compress.prune(model, params, keep)
  masked = compress.reroute(model, params, keep)
  # Two small layers in float32.
  np.testing.assert_allclose(
    apply(pruned, left, ids), apply(model, params, ids, masked), atol=1e-4
  )
  with pytest.raises(ValueError, match="groups of experts, which must keep"):
    compress.prune(model, params, keep[:, 1:])
  models.save_pretrained(pruned, left, tmp_path / "out")
  assert models.from_pretrained(tmp_path / "out")[0] == pruned
