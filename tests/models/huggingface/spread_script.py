"""A checkpoint of 8 experts on 8 virtual devices and on one; run by a test."""

import pathlib
import sys

import hf_cases
import hf_folders
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import Partial

from tanbr_jax import models, moe

EXPERTS = 8


@moe.needs_pair_outputs
def look(layer, output):
  return layer.routing.expert_ids, output.pair_outputs


def results(model, params, ids, mask):
  weights = np.linspace(0, 0.25, EXPERTS, dtype=np.float32)

  @jax.jit
  def run(params):
    dense, merged = models.merge(model, params, weights)
    merged_logits = dense.apply(merged, ids, attention_mask=mask)

    def score(params):
      logits, seen = model.apply(
        params, ids, attention_mask=mask, observe=Partial(look)
      )
      return logits.max(), (logits, seen)

    gradient, found = jax.grad(score, has_aux=True)(params)
    return merged_logits, found, gradient

  return run(params)


def main(folder):
  # Glm's second layer alone, with eight experts in four groups.
  shapes = {}
  for key, shape in hf_folders.described("glm4_moe")["tensors"].items():
    if ".layers.0." not in key:
      shapes[key.replace(".layers.1.", ".layers.0.")] = shape
  prefix = "model.layers.0.mlp."
  for expert in range(6, EXPERTS):
    for name in ("gate_proj", "up_proj", "down_proj"):
      first = shapes[f"{prefix}experts.0.{name}.weight"]
      shapes[f"{prefix}experts.{expert}.{name}.weight"] = first
  shapes[f"{prefix}gate.weight"] = [EXPERTS, 20]
  shapes[f"{prefix}gate.e_score_correction_bias"] = [EXPERTS]
  arrays = {key: hf_cases.values(key, s, 0) for key, s in shapes.items()}
  config = {"n_routed_experts": EXPERTS, "n_group": 4}
  config |= {"num_hidden_layers": 1, "first_k_dense_replace": 0}
  hf_folders.write(folder, "glm4_moe", config=config, arrays=arrays)
  # A mesh of either kind of axes.
  mesh = jax.make_mesh((EXPERTS,), ("experts",))
  sharding = NamedSharding(mesh, PartitionSpec("experts"))
  one = models.from_pretrained(folder)
  many = models.from_pretrained(folder, sharding=sharding)
  stack = many[1]["params"]["layer_0"]["experts"]["stack"]
  assert stack.w_in.addressable_shards[0].data.shape == (1, 20, 7)
  assert stack.shared.w_in.is_fully_replicated
  inputs = hf_cases.inputs(0)
  found = [jax.tree.leaves(results(*each, *inputs)) for each in (one, many)]
  for ours, theirs in zip(*found, strict=True):
    # Sums over experts in another order, of values of at most 10.
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
  models.save_pretrained(*many, folder.parent / "copy")
  assert hf_folders.read(folder.parent / "copy") == hf_folders.read(folder)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
