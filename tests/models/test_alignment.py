import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models, moe

E, D, F = 3, 5, 4


def make_stack(is_gated=True, has_biases=True, seed=0):
  """Experts without a bias that is zero."""
  stack = moe.init_experts(
    jax.random.key(seed),
    E,
    model_dim=D,
    expert_dim=F,
    activation="silu",
    is_gated=is_gated,
    has_biases=has_biases,
  )
  draws = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(draws.standard_normal(leaf.shape), jnp.float32),
    stack,
  )


def align(*stacks, reference=0):
  config = types.SimpleNamespace(
    num_experts=E, moe_layers=tuple(range(1, len(stacks) + 1))
  )
  layers = {
    f"layer_{i}": {"experts": {"stack": stack, "router": i}}
    for i, stack in enumerate(stacks, 1)
  }
  found = models.align_experts(
    types.SimpleNamespace(config=config),
    {"params": {"embedding": 0, **layers}},
    reference=reference,
  )["params"]
  assert found["embedding"] == 0
  assert [found[name]["experts"]["router"] for name in layers] == [
    *config.moe_layers
  ]
  return [found[name]["experts"]["stack"] for name in layers]


def one_of(stack, expert):
  arrays = jax.tree.map(lambda leaf: leaf[expert], stack)
  return moe.FeedForward(**vars(arrays))


def permuted(block, order):
  """In NumPy: the same neurons in another order."""
  axes = {"w_in": 1, "w_gate": 1, "w_out": 0, "b_in": 0, "b_gate": 0}
  arrays = {
    name: np.take(np.asarray(getattr(block, name)), order, axis=axis)
    for name, axis in axes.items()
    if getattr(block, name) is not None
  }
  return dataclasses.replace(block, **arrays)


KINDS = [(True, True), (True, False), (False, False)]
X = jax.random.normal(jax.random.key(9), (7, D))


@pytest.mark.parametrize(("is_gated", "has_biases"), KINDS)
def test_no_expert_computes_anything_else(is_gated, has_biases):
  stack = make_stack(is_gated, has_biases)
  (found,) = align(stack, reference=1)
  for expert in range(E):
    before = moe.apply(one_of(stack, expert), X)
    after = moe.apply(one_of(found, expert), X)
    # Sums of F products of size 10 in another order: F * 2^-24 * 10.
    np.testing.assert_allclose(after, before, atol=1e-5)
  for ours, theirs in zip(
    jax.tree.leaves(one_of(found, 1)),
    jax.tree.leaves(one_of(stack, 1)),
    strict=True,
  ):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("is_gated", "has_biases"), KINDS)
def test_an_expert_and_its_permuted_copies_merge_to_it(is_gated, has_biases):
  block = one_of(make_stack(is_gated, has_biases), 0)
  orders = [[0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]]
  copies = [permuted(block, order) for order in orders]
  stack = moe.Experts(
    **vars(jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies))
  )
  weights = jnp.float32([0.5, 0.3, 0.2])
  expected = moe.apply(block, X)
  assert np.abs(moe.apply(moe.merge(stack, weights), X) - expected).max() > 0.1
  (found,) = align(stack, reference=2)
  merged = moe.merge(found, weights)
  np.testing.assert_allclose(moe.apply(merged, X), expected, atol=1e-5)


def test_the_order_is_the_best_of_all():
  stacks = make_stack(seed=1), make_stack(seed=2)
  found = align(*stacks, reference=[0, 2])
  stacks, found = jax.tree.map(np.asarray, (stacks, found))
  for stack, aligned, reference in zip(stacks, found, (0, 2), strict=True):
    for expert in range(E):
      best = max(
        itertools.permutations(range(F)),
        key=lambda order: likeness(
          one_of(stack, reference), permuted(one_of(stack, expert), order)
        ),
      )
      expected = permuted(one_of(stack, expert), best)
      np.testing.assert_array_equal(aligned.w_in[expert], expected.w_in)
      np.testing.assert_array_equal(aligned.w_out[expert], expected.w_out)


def likeness(ours, theirs):
  """Neuron by neuron, in loops: cosines of what is read and written."""

  def parts(block):
    return (
      [[*block.w_in[:, f], block.b_in[f]] for f in range(F)],
      [[*block.w_gate[:, f], block.b_gate[f]] for f in range(F)],
      [[*block.w_out[f]] for f in range(F)],
    )

  total = 0.0
  for a, b in zip(parts(ours), parts(theirs), strict=True):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    total += (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
  return total


@pytest.mark.parametrize("reference", [3, -1, [0, 0], 0.0, [True]])
def test_what_is_no_expert_is_refused(reference):
  with pytest.raises(ValueError, match="reference"):
    align(make_stack(), reference=reference)


def test_a_dense_model_is_refused():
  dense = models.Decoder(models.preset("tiny", num_experts=None))
  with pytest.raises(ValueError, match="stacked experts"):
    models.align_experts(dense, {})
