"""Small experts, tokens and routings, and every forward in one program."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import plain_moe

from tanbr_jax import moe

# Three examples of three positions, in segments of two and one.
BATCH, LENGTH, SEGMENT = 3, 3, 2
NUM_TOKENS, NUM_EXPERTS, NUM_SELECTED, DIM, HIDDEN = 9, 4, 2, 5, 6
FORMS = {
  "plain": {"activation": "relu2"},
  "full": {
    "activation": "silu",
    "is_gated": True,
    "has_biases": True,
    "shared_dim": 3,
    "has_shared_gate": True,
  },
}


class Shares(NamedTuple):
  """What each forward is told; all of it is differentiable."""

  gates: jax.Array  # [N, K]
  merge_weights: jax.Array  # [E]
  several: jax.Array  # [2, E]
  token_weights: jax.Array  # [N, E]
  example_weights: jax.Array  # [B, E]
  segment_weights: jax.Array  # [B, 2, E]


class Case(NamedTuple):
  experts: moe.Experts
  x: jax.Array  # [B, S, D]
  shares: Shares
  ids: np.ndarray  # [N, K]
  mask: np.ndarray  # [N, E]


@functools.cache
def draw_experts(form, *, num_experts=NUM_EXPERTS, dtype="float32"):
  """Experts of a form, biases drawn too."""

  @jax.jit
  def run(key):
    key, bias_key = jax.random.split(key)
    experts = moe.init_experts(
      key, num_experts, model_dim=DIM, expert_dim=HIDDEN, **FORMS[form]
    )
    biases = {
      name: jax.random.normal(jax.random.fold_in(bias_key, i), array.shape)
      for i, name in enumerate(("b_in", "b_gate", "b_out"))
      if (array := getattr(experts, name)) is not None
    }
    experts = dataclasses.replace(experts, **biases)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), experts)

  return run(jax.random.key(0))


def draw(form, dtype="float32"):
  rng = np.random.default_rng(5)

  def simplex(*lead):
    return rng.dirichlet(np.ones(NUM_EXPERTS), lead).astype(np.float32)

  ids = [rng.permutation(NUM_EXPERTS)[:NUM_SELECTED] for _ in range(NUM_TOKENS)]
  x = rng.normal(size=(BATCH, LENGTH, DIM)).astype(np.float32)
  shares = Shares(
    gates=rng.uniform(0.2, 1, (NUM_TOKENS, NUM_SELECTED)).astype(np.float32),
    merge_weights=simplex(1)[0],
    several=simplex(2),
    token_weights=simplex(NUM_TOKENS),
    example_weights=simplex(BATCH),
    segment_weights=simplex(BATCH, 2),
  )
  return Case(
    experts=draw_experts(form, dtype=dtype),
    x=jnp.asarray(x, dtype),
    shares=jax.tree.map(jnp.asarray, shares),
    ids=np.array(ids, np.int32),
    mask=rng.uniform(size=(NUM_TOKENS, NUM_EXPERTS)) < 0.6,
  )


def set_expert(experts, index, value):
  """The experts with one of them filled; what is shared stays."""
  own = dataclasses.replace(experts, shared=None, shared_gate=None)
  own = jax.tree.map(lambda leaf: leaf.at[index].set(value), own)
  return dataclasses.replace(
    own, shared=experts.shared, shared_gate=experts.shared_gate
  )


def routing(ids, gates):
  probabilities = jnp.full((ids.shape[0], NUM_EXPERTS), 1 / NUM_EXPERTS)
  return moe.Routing(jnp.asarray(ids), gates, probabilities)


FORWARDS = {
  "masked": lambda experts, x, shares, ids, mask: moe.masked(
    experts, x, routing(ids, shares.gates), mask
  ),
  "merged": lambda experts, x, shares, ids, mask: moe.merged(
    experts, x, shares.merge_weights
  ),
  "several": lambda experts, x, shares, ids, mask: moe.merged(
    experts, x, shares.several
  ),
  "soft": lambda experts, x, shares, ids, mask: moe.soft(
    experts, x, shares.token_weights
  ),
  "example": lambda experts, x, shares, ids, mask: moe.merged_per_example(
    experts, x, shares.example_weights
  ),
  "segment": lambda experts, x, shares, ids, mask: moe.merged_per_segment(
    experts, x, shares.segment_weights, segment_length=SEGMENT
  ),
  "selected": lambda experts, x, shares, ids, mask: moe.merged_of_selected(
    experts, x.reshape(-1, DIM), routing(ids, shares.gates)
  ),
}


@functools.partial(jax.jit, static_argnames="names")
def run(experts, x, shares, ids, mask, cotangents, names=tuple(FORWARDS)):
  """Forwards by name, and gradients of their sum with the cotangents."""

  def total(*args):
    outputs = {name: FORWARDS[name](*args, ids, mask) for name in names}
    return sum(
      jnp.vdot(outputs[name].astype(jnp.float32), cotangents[name])
      for name in names
    ), outputs

  grad = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
  (_, outputs), grads = grad(experts, x, shares)
  return outputs, grads


@functools.partial(jax.jit, static_argnames="implementation")
def run_routed(experts, x, ids, gates, implementation=None):
  """The routed forward and the gradients of the sum of its sines."""

  def total(experts, x, gates):
    out = moe.routed(
      experts, x, routing(ids, gates), implementation=implementation
    )
    return jnp.sum(jnp.sin(out)), out

  grad = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
  (_, out), grads = grad(experts, x, gates)
  return out, grads


def plain(experts, x, shares, ids, mask):
  """What `FORWARDS` must return, by loops in float64."""
  arrays = plain_moe.to_float64(experts)
  x = np.asarray(x, np.float64).reshape(-1, DIM)
  shares = Shares(*(np.asarray(s, np.float64) for s in shares))
  is_kept = np.take_along_axis(mask, np.clip(ids, 0, NUM_EXPERTS - 1), axis=1)
  chosen = np.zeros((NUM_TOKENS, NUM_EXPERTS))
  for n in range(NUM_TOKENS):
    for e, gate in zip(ids[n], shares.gates[n], strict=True):
      if 0 <= e < NUM_EXPERTS:
        chosen[n, e] += gate
  # Positions 0 and 1 are the first segment of an example, 2 the second.
  by_segment = shares.segment_weights[:, [0, 0, 1]].reshape(-1, NUM_EXPERTS)

  def merged(weights):
    return plain_moe.merged(arrays, x, weights)

  def everywhere(weights):
    return merged(np.tile(weights, (NUM_TOKENS, 1)))

  return {
    "masked": plain_moe.routed(
      arrays, x, np.where(is_kept, ids, -1), shares.gates
    ),
    "merged": everywhere(shares.merge_weights),
    "several": np.stack([everywhere(w) for w in shares.several]),
    "soft": plain_moe.soft(arrays, x, shares.token_weights),
    "example": merged(np.repeat(shares.example_weights, LENGTH, axis=0)),
    "segment": merged(by_segment),
    "selected": merged(chosen),
  }
