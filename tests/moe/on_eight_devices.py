"""The layers and the models inside `jax.shard_map`, against a loop over shards.

A script, as the number of devices is that of a process: `test_shard_map.py`
runs it.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from tanbr_jax import models, moe

NUM_DEVICES, NUM_EXPERTS, DIM, TOKENS = 8, 3, 4, 5
SHARDED, WHOLE = PartitionSpec("data"), PartitionSpec()


def total(tree):
  return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(tree))


def layers(experts, shard):
  """Scalars of everything that a layer does with one shard of the data."""
  x, logits, weights = (leaf[0] for leaf in shard)
  routing = moe.top_k(logits, 2)
  limited = moe.limit_capacity(routing, 3)
  is_even = jnp.arange(TOKENS) % 2 == 0
  twice = jnp.stack([x, -x]), jnp.stack([logits, 2 * logits])
  outputs = {
    "routed": moe.routed(experts, x, limited),
    "vmap": jax.vmap(
      lambda x, logits: moe.routed(experts, x, moe.top_k(logits, 2))
    )(*twice),
    "masked": moe.masked(experts, x, routing, logits > 0),
    "soft": moe.soft(experts, x, jax.nn.softmax(logits)),
    "several": moe.merged(experts, x, weights),
    "vmap of merges": jax.vmap(lambda w: moe.merge(experts, w).w_in)(weights),
    "selected": moe.merged_of_selected(experts, x, routing),
    "balance": moe.load_balance_loss(routing, is_even),
    "z": moe.z_loss(logits, is_even),
    "mass": moe.expert_statistics(routing).gate_mass,
    "entropy": moe.token_statistics(routing).entropy,
    "dropped": moe.dropped_share(limited),
  }
  return {name: total(output) for name, output in outputs.items()}


def few_layers(experts, shard):
  """The parts of `layers` that have a loop or a rule of their own."""
  x, logits, weights = (leaf[0] for leaf in shard)
  routing = moe.top_k(logits, 2)
  return {
    "routed": total(moe.routed(experts, x, routing)),
    "merges": total(moe.merge(experts, weights)),
    "balance": moe.load_balance_loss(routing) + moe.z_loss(logits),
  }


def model_losses(model):
  """The same of a whole model: routed, and merged."""

  def losses(replicated, shard):
    params, weights = replicated
    dense, dense_params = models.merge(model, params, weights)
    return {
      "apply": total(model.apply(params, shard)),
      "merge": total(dense.apply(dense_params, shard)),
    }

  return losses


def check(name, function, replicated, data, checks=(True, False)):
  """Compares values and gradients with those of a loop over the shards."""
  mesh = Mesh(np.array(jax.devices()), ("data",))

  def inside(replicated, shard):
    return jax.lax.psum(function(replicated, shard), "data")

  def sharded(check_vma, replicated, data):
    run = jax.shard_map(
      inside,
      mesh=mesh,
      in_specs=(WHOLE, SHARDED),
      out_specs=WHOLE,
      check_vma=check_vma,
    )
    return run(replicated, data)

  def looped(replicated, data):
    # A shard keeps its axis of 1.
    shards = jax.tree.map(lambda leaf: leaf[:, None], data)
    values = jax.lax.map(lambda shard: function(replicated, shard), shards)
    return jax.tree.map(jnp.sum, values)

  def both(run):
    def scalar(*args):
      values = run(*args)
      return sum(values.values()), values

    grad = jax.value_and_grad(scalar, allow_int=True, has_aux=True)
    (_, values), grads = jax.jit(grad)(replicated, data)
    return values, grads

  expected, expected_grads = both(looped)
  for check_vma in checks:
    values, grads = both(functools.partial(sharded, check_vma))
    for key, value in expected.items():
      np.testing.assert_allclose(
        values[key], value, rtol=1e-4, atol=1e-4, err_msg=f"{name} {key}"
      )
    for got, value in zip(
      *map(jax.tree.leaves, (grads, expected_grads)), strict=True
    ):
      # Float32 sums over eight shards, in another order.
      np.testing.assert_allclose(
        got, value, atol=1e-4 * max(1, np.abs(value).max()), err_msg=name
      )


def main(name):
  assert jax.device_count() == NUM_DEVICES
  jax.config.update("jax_numpy_dtype_promotion", "strict")
  jax.config.update("jax_numpy_rank_promotion", "raise")
  rng = np.random.default_rng(0)
  experts = moe.init_experts(
    jax.random.key(0),
    NUM_EXPERTS,
    model_dim=DIM,
    expert_dim=6,
    has_biases=True,
  )
  data = tuple(
    jnp.array(rng.normal(size=(NUM_DEVICES, *shape)), jnp.float32)
    for shape in ((TOKENS, DIM), (TOKENS, NUM_EXPERTS), (2, NUM_EXPERTS))
  )
  if name == "everything":
    check("layers", layers, experts, data)
    check_models(rng)
  else:
    check("layers", few_layers, experts, data, checks=(True,))


def check_models(rng):
  config = models.ByteLMConfig(
    num_layers=1,
    model_dim=8,
    num_heads=1,
    head_dim=8,
    expert_dim=8,
    num_experts=NUM_EXPERTS,
    context=4,
    dtype="float32",
  )
  for model in (models.ByteLM(config), models.Decoder(models.preset("tiny"))):
    num_experts = model.config.num_experts
    replicated = (
      jax.jit(model.init)(jax.random.key(1)),
      jnp.full(num_experts, 1 / num_experts),
    )
    ids = rng.integers(model.config.vocab_size, size=(NUM_DEVICES, 4))
    losses = model_losses(model)
    ids = jnp.asarray(ids, jnp.int32)
    check(type(model).__name__, losses, replicated, ids)


if __name__ == "__main__":
  main(sys.argv[1])
