import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain_moe
import pytest

from tanbr_jax import moe
from tanbr_jax.compress.merging import blocks

E, D, F, N = 4, 5, 6, 40
ARRAYS = ("w_in", "w_gate", "w_out", "b_in", "b_gate", "b_out")
# Two groups; the last expert counts for nothing.
WEIGHTS = np.array([[0.75, 0, 0.25, 0], [0, 1.0, 0, 0]])
ONE = np.array([[0.5, 0.2, 0.3, 0.0]])


@pytest.fixture(scope="module")
def stack():
  made = moe.init_experts(
    jax.random.key(0),
    E,
    model_dim=D,
    expert_dim=F,
    activation="silu",
    is_gated=True,
    has_biases=True,
    shared_dim=3,
  )
  draws = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: jnp.asarray(draws.standard_normal(leaf.shape), jnp.float32),
    made,
  )


@pytest.fixture(scope="module")
def inputs():
  return np.random.default_rng(1).standard_normal((N, D)).astype(np.float32)


def own(stack, name):
  return np.asarray(getattr(stack, name), np.float64)


def permuted_copies(stack):
  """The first expert, and its neurons in other orders."""
  first = plain_moe.one_expert(plain_moe.to_float64(stack), 0)
  draws = np.random.default_rng(5)
  orders = [np.arange(F), *(draws.permutation(F) for _ in range(E - 1))]
  axes = {"w_in": 1, "w_gate": 1, "b_in": 0, "b_gate": 0, "w_out": 0}
  arrays = {
    name: np.stack([np.take(first[name], o, axis) for o in orders])
    for name, axis in axes.items()
  }
  arrays["b_out"] = np.stack([first["b_out"]] * E)
  return dataclasses.replace(
    stack, **{n: jnp.asarray(a, jnp.float32) for n, a in arrays.items()}
  )


def units_of(stack, expert, x):
  """Hidden units in float64, one token at a time."""
  plain = plain_moe.one_expert(plain_moe.to_float64(stack), expert)
  gate = np.float64(x) @ plain["w_gate"] + plain["b_gate"]
  hidden = np.float64(x) @ plain["w_in"] + plain["b_in"]
  return gate / (1 + np.exp(-gate)) * hidden


def test_the_average_is_the_weighted_sum(stack):
  found = blocks.average(stack, WEIGHTS)
  for name in ARRAYS:
    wanted = np.einsum("ge,e...->g...", WEIGHTS, own(stack, name))
    np.testing.assert_allclose(getattr(found, name), wanted, atol=1e-6)
  assert found.shared is stack.shared


def test_hidden_units_are_those_of_a_loop(stack, inputs):
  found = blocks.hidden_units(stack, inputs)
  for expert in range(E):
    np.testing.assert_allclose(
      found[expert], units_of(stack, expert, inputs), atol=1e-4
    )


def test_fisher_averages_each_number_by_its_squared_gradients(stack):
  draws = np.random.default_rng(2)
  squares = {
    name: draws.exponential(size=getattr(stack, name).shape) for name in ARRAYS
  }
  squares["w_in"][:, 1, 2] = 0  # of no expert
  found = blocks.fisher(stack, WEIGHTS, squares)
  for name in ARRAYS:
    values = own(stack, name)
    for place in np.ndindex(values.shape[1:]):
      at = (slice(None), *place)
      wanted = np.dot(squares[name][at][[0, 2]], values[at][[0, 2]])
      total = squares[name][at][[0, 2]].sum()
      wanted = WEIGHTS[0] @ values[at] if not total else wanted / total
      got = getattr(found, name)[(0, *place)]
      np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_allclose(getattr(found, name)[1], values[1], atol=1e-6)


def moments(rows):
  return np.stack([one.T @ one for one in rows])


def test_reg_mean_is_the_closed_form(stack):
  draws = np.random.default_rng(3)
  reads = {
    "w_in": moments(draws.normal(size=(E, 30, D))),
    "w_out": moments(draws.normal(size=(E, 30, F))),
  }
  reads["w_gate"] = reads["w_in"]
  found = blocks.reg_mean(
    stack,
    ONE,
    input_moments=reads["w_in"],
    hidden_moments=reads["w_out"],
    shrinkage=0.7,
  )
  for name, grams in reads.items():
    left, right = 0, 0
    for e in range(3):  # the last has no share
      gram = 0.7 * grams[e] + 0.3 * np.diag(np.diag(grams[e]))
      left = left + gram
      right = right + gram @ own(stack, name)[e]
    wanted = np.linalg.inv(left) @ right
    # Float32 results, and a ridge of 1e-9 of a well-conditioned system.
    np.testing.assert_allclose(getattr(found, name)[0], wanted, atol=2e-6)
  for name in ("b_in", "b_gate", "b_out"):
    np.testing.assert_allclose(
      getattr(found, name)[0], ONE[0] @ own(stack, name), atol=1e-6
    )


def test_reg_mean_keeps_the_average_where_text_says_nothing(stack):
  inputs = np.zeros((E, D, D))
  inputs[:, 0, 0] = [1, 2, 3, 4]
  found = blocks.reg_mean(
    stack, ONE, input_moments=inputs, hidden_moments=np.zeros((E, F, F))
  )
  w_in, mean = own(stack, "w_in"), np.tensordot(ONE[0], own(stack, "w_in"), 1)
  wanted = np.array(mean)
  wanted[0] = (1 * w_in[0, 0] + 2 * w_in[1, 0] + 3 * w_in[2, 0]) / 6
  np.testing.assert_allclose(found.w_in[0], wanted, atol=1e-6)
  np.testing.assert_allclose(
    found.w_out[0], np.tensordot(ONE[0], own(stack, "w_out"), 1), atol=1e-6
  )


def test_merge_moe_is_the_least_squares_fit_of_the_outputs(stack, inputs):
  is_chosen = np.random.default_rng(4).random((N, E)) < 0.5
  found = blocks.merge_moe(stack, WEIGHTS, inputs=inputs, is_chosen=is_chosen)
  rows = is_chosen[:, 0] | is_chosen[:, 2]
  assert F < rows.sum() < N
  wanted = sum(
    share * units_of(stack, e, inputs[rows]) @ own(stack, "w_out")[e]
    for e, share in ((0, 0.75), (2, 0.25))
  )
  merged = blocks.average(stack, WEIGHTS)
  have = units_of(merged, 0, inputs[rows])
  best = np.linalg.lstsq(have, wanted, rcond=None)[0]
  # Units of float32 and about 30 tokens for 6 numbers.
  np.testing.assert_allclose(found.w_out[0], best, atol=2e-3)
  np.testing.assert_allclose(found.w_in, merged.w_in)
  np.testing.assert_allclose(found.w_out[1], stack.w_out[1], atol=1e-4)


def test_merge_moe_without_tokens_is_the_average(stack, inputs):
  found = blocks.merge_moe(
    stack, WEIGHTS, inputs=inputs, is_chosen=np.zeros((N, E), bool)
  )
  np.testing.assert_allclose(
    found.w_out, blocks.average(stack, WEIGHTS).w_out, atol=1e-6
  )


def test_zip_it_undoes_permutations(stack, inputs):
  copies = permuted_copies(stack)
  found = blocks.zip_it(copies, np.full((1, E), 1 / E), inputs=inputs)
  one = plain_moe.one_expert(plain_moe.to_float64(found), 0)
  first = plain_moe.one_expert(plain_moe.to_float64(stack), 0)
  for x in np.float64(inputs[:7]):
    np.testing.assert_allclose(
      plain_moe.block(one, x), plain_moe.block(first, x), atol=1e-4
    )


def test_zip_it_by_hand():
  """Two experts of two neurons; inputs are the units, as all are positive.

  Neurons read 2 x_0 and x_1 in the first expert, x_1 and 3 x_1 in the second:
  the last three fire together and become one neuron, which reads the mean of
  x_1, x_1 and 3 x_1 and writes what all three write, halved.
  """
  stack = moe.Experts(
    w_in=jnp.float32([[[2, 0], [0, 1]], [[0, 0], [1, 3]]]),
    w_out=jnp.float32([[[1, 0], [0, 2]], [[4, 0], [6, 8]]]),
    activation="relu",
  )
  inputs = np.float32([[1, 2], [3, 1], [2, 5], [4, 4]])
  found = blocks.zip_it(stack, np.array([[0.5, 0.5]]), inputs=inputs)
  order = np.argsort(-np.asarray(found.w_in[0, 0]))
  np.testing.assert_allclose(
    found.w_in[0][:, order], [[2, 0], [0, 5 / 3]], atol=1e-6
  )
  np.testing.assert_allclose(
    found.w_out[0][order], [[0.5, 0], [(4 + 6) / 2, (2 + 8) / 2]], atol=1e-6
  )


def test_zip_it_refuses_what_it_cannot_compare(stack, inputs, monkeypatch):
  monkeypatch.setattr(blocks, "MAX_NEURONS", 3 * F - 1)
  with pytest.raises(ValueError, match=f"got {3 * F} in a group"):
    blocks.zip_it(stack, ONE, inputs=inputs)


def test_sub_moe_is_the_average_in_the_members_common_basis(stack):
  full = blocks.sub_moe(stack, ONE)
  average = blocks.average(stack, ONE)
  np.testing.assert_array_equal(full.w_in, average.w_in)
  found = blocks.sub_moe(stack, ONE, rank_share=0.5)
  for name, rank in (("w_in", 3), ("w_gate", 3), ("w_out", 2)):
    # As the paper has them: [out, in], side by side; 0.5 of 6 and of 5.
    sides = [own(stack, name)[e].T for e in range(3)]
    u, s, v = np.linalg.svd(np.concatenate(sides, axis=1), full_matrices=False)
    parts = np.split(v[:rank], 3, axis=1)
    mean = sum(w * part for w, part in zip(ONE[0], parts, strict=False))
    wanted = (u[:, :rank] * s[:rank]) @ mean
    np.testing.assert_allclose(getattr(found, name)[0], wanted.T, atol=1e-5)
  with pytest.raises(ValueError, match="rank_share .* got rank_share=0"):
    blocks.sub_moe(stack, ONE, rank_share=0)


def test_namex_weights_are_a_bargain(stack):
  found = blocks.namex(stack, np.full((1, E), 1 / E))
  flat = np.concatenate([own(stack, n).reshape(E, -1) for n in ARRAYS], axis=1)
  # The merged block's coordinates in the experts are the weights.
  merged = np.concatenate(
    [np.asarray(getattr(found, name), np.float64).ravel() for name in ARRAYS]
  )
  shares = np.linalg.lstsq(flat.T, merged, rcond=None)[0]
  np.testing.assert_allclose(shares.sum(), 1, atol=1e-5)
  # (G'G) a = 1 / a up to the scale of a.
  gains = shares * (flat @ flat.T @ shares)
  np.testing.assert_allclose(gains / gains.mean(), 1, atol=1e-4)
