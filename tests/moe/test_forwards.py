"""Every forward against float64 loops; identities between the forwards."""

import dataclasses

import jax
import jax.numpy as jnp
import moe_cases
import numpy as np
import plain_moe
import pytest
from moe_cases import DIM, NUM_EXPERTS, NUM_TOKENS

from tanbr_jax import moe


def _cotangents(case):
  rng = np.random.default_rng(6)
  expected = moe_cases.plain(*case)
  shape = case.x.shape
  shapes = {name: shape for name in expected}
  shapes["several"] = (2, *shape)
  shapes["selected"] = (NUM_TOKENS, DIM)
  return {
    name: rng.normal(size=shapes[name]).astype(np.float32) for name in expected
  }


def _run(case, **names):
  return moe_cases.run(*case, _cotangents(case), **names)


def _run_routed(case, **changes):
  case = case._replace(**changes)
  return moe_cases.run_routed(case.experts, case.x, case.ids, case.shares.gates)


@pytest.fixture(scope="module", params=moe_cases.FORMS)
def case(request):
  return moe_cases.draw(request.param)


def _plain_total(case, cotangents):
  expected = moe_cases.plain(*case)
  return sum(
    np.vdot(expected[name], np.float64(cotangents[name])) for name in expected
  )


def test_values_equal_a_loop(case):
  outputs, _ = _run(case)
  for name, expected in moe_cases.plain(*case).items():
    # Float32 sums of at most 30 products, values of about 1.
    np.testing.assert_allclose(
      outputs[name].reshape(expected.shape),
      expected,
      rtol=1e-5,
      atol=1e-5,
      err_msg=name,
    )


def test_gradients_equal_the_loops_slopes(case):
  cotangents = _cotangents(case)
  _, grads = _run(case)
  wide = jax.tree.map(np.float64, case)
  leaves, treedef = jax.tree.flatten(tuple(wide[:3]))
  rng = np.random.default_rng(7)
  for i, grad in enumerate(jax.tree.leaves(grads)):
    direction = rng.normal(size=leaves[i].shape)

    def total(step, i=i, direction=direction):
      moved = [*leaves]
      moved[i] = leaves[i] + step * direction
      args = jax.tree.unflatten(treedef, moved)
      return _plain_total((*args, case.ids, case.mask), cotangents)

    slope = (total(1e-5) - total(-1e-5)) / 2e-5
    # The gradient's float32 rounding; the slope is good to 1e-8 or so.
    assert float(np.vdot(np.float64(grad), direction)) == pytest.approx(
      slope, rel=1e-4, abs=1e-4
    ), str(jax.tree.structure(grads)) + f" leaf {i}"


def test_bfloat16_is_float32_rounded():
  names = ("masked", "example")
  case = moe_cases.draw("full", "bfloat16")
  outputs, grads = _run(case, names=names)
  expected = moe_cases.plain(*case)
  for name in names:
    assert outputs[name].dtype == jnp.bfloat16
    # Three roundings of 2^-9 to each term: inputs of a product, its hidden
    # values, its output; the loop starts from the same rounded numbers.
    np.testing.assert_allclose(
      outputs[name].astype(jnp.float32).reshape(expected[name].shape),
      expected[name],
      atol=0.02 * np.abs(expected[name]).max(),
      err_msg=name,
    )
  wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tuple(case[:3]))
  wide = moe_cases.Case(*wide, *case[3:])
  zeros = jax.tree.map(np.zeros_like, _cotangents(case))
  cotangents = zeros | {name: _cotangents(case)[name] for name in names}
  _, wide_grads = moe_cases.run(*wide, cotangents)
  for grad, wide_grad in zip(
    jax.tree.leaves(grads), jax.tree.leaves(wide_grads), strict=True
  ):
    error = np.linalg.norm(np.float32(grad) - wide_grad)
    assert error <= 0.03 * np.linalg.norm(wide_grad)


def test_one_hot_merge_is_routing_to_that_expert(case):
  for e in (0, 3):
    ids = np.tile(np.array([e, moe.NO_EXPERT], np.int32), (NUM_TOKENS, 1))
    one_hot = jnp.eye(NUM_EXPERTS)[e]
    shares = case.shares._replace(
      gates=jnp.ones((NUM_TOKENS, 2)), merge_weights=one_hot
    )
    everyone = np.ones_like(case.mask)
    outputs, _ = _run(case._replace(shares=shares, ids=ids, mask=everyone))
    np.testing.assert_allclose(
      outputs["merged"], outputs["masked"], rtol=1e-5, atol=1e-5
    )


def test_full_mask_changes_nothing(case):
  outputs, _ = _run(case._replace(mask=np.ones_like(case.mask)))
  out, _ = _run_routed(case)
  np.testing.assert_allclose(outputs["masked"], out, rtol=1e-6, atol=1e-6)


def test_equal_weights_everywhere_are_one_merge(case):
  weights = case.shares.merge_weights
  everywhere = {
    name: jnp.broadcast_to(weights, getattr(case.shares, name).shape)
    for name in ("several", "example_weights", "segment_weights")
  }
  outputs, _ = _run(case._replace(shares=case.shares._replace(**everywhere)))
  for name in ("example", "segment"):
    np.testing.assert_allclose(
      outputs[name], outputs["merged"], rtol=1e-5, atol=1e-5, err_msg=name
    )
  for out in outputs["several"]:
    np.testing.assert_allclose(out, outputs["merged"], rtol=1e-5, atol=1e-5)


def test_identical_experts_are_that_expert_however_shared(case):
  own = jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape),
    dataclasses.replace(case.experts, shared=None, shared_gate=None),
  )
  experts = dataclasses.replace(
    own, shared=case.experts.shared, shared_gate=case.experts.shared_gate
  )
  # All shares sum to one, so all forwards are the expert's output.
  gates = case.shares.gates / case.shares.gates.sum(1, keepdims=True)
  shares = case.shares._replace(gates=gates)
  outputs, _ = _run(case._replace(experts=experts, shares=shares))
  out, _ = _run_routed(case, experts=experts, shares=shares)
  for name in ("merged", "soft", "example", "segment", "selected"):
    np.testing.assert_allclose(
      outputs[name].reshape(case.x.shape),
      out,
      rtol=1e-5,
      atol=2e-5,
      err_msg=name,
    )


def test_merging_is_soft_where_experts_differ_in_what_is_linear(case):
  # The output is linear in w_out and b_out: with all else equal, the mean of
  # outputs is the output of the mean.
  same = {
    name: jnp.broadcast_to(array[:1], array.shape)
    for name in ("w_in", "w_gate", "b_in", "b_gate")
    if (array := getattr(case.experts, name)) is not None
  }
  experts = dataclasses.replace(case.experts, **same)
  weights = jnp.broadcast_to(
    case.shares.merge_weights, case.shares.token_weights.shape
  )
  shares = case.shares._replace(token_weights=weights)
  outputs, _ = _run(case._replace(experts=experts, shares=shares))
  np.testing.assert_allclose(
    outputs["merged"], outputs["soft"], rtol=1e-5, atol=1e-5
  )


def test_without_an_active_expert_only_the_shared_block_is_left(case):
  ids = np.full_like(case.ids, moe.NO_EXPERT)
  out, (grads, _, gates_grad) = _run_routed(case, ids=ids)
  arrays = plain_moe.to_float64(case.experts)
  tokens = np.float64(case.x).reshape(NUM_TOKENS, DIM)
  expected = [plain_moe.shared(arrays, token) for token in tokens]
  np.testing.assert_allclose(
    out.reshape(NUM_TOKENS, DIM), expected, rtol=1e-5, atol=1e-5
  )
  np.testing.assert_array_equal(gates_grad, 0.0)
  np.testing.assert_array_equal(grads.w_in, 0.0)
  np.testing.assert_array_equal(grads.w_out, 0.0)


def test_tokens_over_capacity_keep_the_shared_block_alone(case):
  ids = np.tile(np.array([1, 2], np.int32), (NUM_TOKENS, 1))
  limited = jax.jit(moe.limit_capacity, static_argnums=1)(
    moe_cases.routing(ids, case.shares.gates), 4
  )
  out, _ = _run_routed(
    case,
    ids=limited.expert_ids,
    shares=case.shares._replace(gates=limited.gates),
  )
  arrays = plain_moe.to_float64(case.experts)
  tokens = np.float64(case.x).reshape(NUM_TOKENS, DIM)
  served = plain_moe.routed(
    arrays, tokens[:4], ids[:4], np.float64(case.shares.gates[:4])
  )
  dropped = [plain_moe.shared(arrays, token) for token in tokens[4:]]
  np.testing.assert_allclose(
    out.reshape(NUM_TOKENS, DIM), [*served, *dropped], rtol=1e-5, atol=1e-5
  )


def test_ids_out_of_range_are_skipped_under_jit(case):
  ids = np.array(case.ids)
  ids[[0, 3, 8], [1, 0, 1]] = moe.NO_EXPERT
  expected = _run_routed(case, ids=ids)
  ids[[0, 3, 8], [1, 0, 1]] = [NUM_EXPERTS, -7, 2**30]
  out = _run_routed(case, ids=ids)
  jax.tree.map(np.testing.assert_array_equal, out, expected)


def test_a_broken_expert_that_nobody_chose_reaches_nobody(case):
  ids = np.where(case.ids == 2, moe.NO_EXPERT, case.ids)
  expected = _run_routed(case, ids=ids)
  broken = moe_cases.set_expert(case.experts, 2, jnp.nan)
  out = _run_routed(case, ids=ids, experts=broken)
  jax.tree.map(np.testing.assert_array_equal, out, expected)


def test_every_expert_by_its_gate_is_soft():
  case = moe_cases.draw("full")
  weights = case.shares.token_weights
  ids = np.tile(np.arange(NUM_EXPERTS, dtype=np.int32), (NUM_TOKENS, 1))
  out, (grads, x_grad, gates_grad) = moe_cases.run_routed(
    case.experts, case.x, ids, weights
  )

  @jax.jit
  def soft(experts, x, weights):
    def total(*args):
      out = moe.soft(*args)
      return jnp.sum(jnp.sin(out)), out

    return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(
      experts, x, weights
    )

  (_, expected), expected_grads = soft(case.experts, case.x, weights)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    (grads, x_grad, gates_grad),
    expected_grads,
  )


@pytest.mark.parametrize("name", ["mosaic_gpu", "mosaic_tpu", "tokamax"])
def test_an_implementation_equals_the_reference_or_says_why_not(name):
  case = moe_cases.draw("plain")
  args = (case.experts, case.x, case.ids, case.shares.gates)
  try:
    out = moe_cases.run_routed(*args, implementation=name)
  except ValueError as error:
    assert f"implementation='{name}' cannot run" in str(error)
    return
  expected = moe_cases.run_routed(*args, implementation="xla")
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    out,
    expected,
  )


def test_one_token_and_one_expert():
  experts = moe_cases.draw_experts("plain", num_experts=1)
  x = jax.random.normal(jax.random.key(1), (1, DIM))

  @jax.jit
  def run(experts, x):
    choice = moe.top_k(jnp.zeros((1, 1)), 1)
    return (
      moe.routed(experts, x, choice),
      moe.soft(experts, x, jnp.ones((1, 1))),
      moe.merged_of_selected(experts, x, choice),
      moe.merged(experts, x[0], jnp.ones(1))[None],
    )

  first, *others = run(experts, x)
  assert np.abs(first).max() > 0.1
  for other in others:
    np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-6)


def test_refuses_what_disagrees():
  case = moe_cases.draw("plain")
  choice = moe_cases.routing(case.ids, case.shares.gates)
  experts, x = case.experts, case.x
  with pytest.raises(ValueError, match=r"N=6 tokens.*\(9, 2\)"):
    moe.routed(experts, x[:2], choice)
  with pytest.raises(ValueError, match=r"D=5, got x \(3, 3, 4\)"):
    moe.routed(experts, x[..., :4], choice)
  with pytest.raises(ValueError, match="x bfloat16, w_in float32"):
    moe.routed(experts, x.astype(jnp.bfloat16), choice)
  with pytest.raises(ValueError, match="expert_ids float32"):
    moe.routed(experts, x, choice._replace(expert_ids=choice.gates))
  with pytest.raises(ValueError, match=r"mask float32\(9, 4\)"):
    moe.masked(experts, x, choice, jnp.ones((9, 4)))
  with pytest.raises(ValueError, match=r"\(9, 4\), got weights \(9, 3\)"):
    moe.soft(experts, x, jnp.ones((9, 3)))
  with pytest.raises(ValueError, match="implementation='mosaic_gpu'"):
    moe.soft(experts, x, jnp.ones((9, 4)), implementation="mosaic_gpu")
  with pytest.raises(ValueError, match="implementation='fast'"):
    moe.routed(experts, x, choice, implementation="fast")
  with pytest.raises(ValueError, match="activation='swoosh'"):
    moe.routed(dataclasses.replace(experts, activation="swoosh"), x, choice)


def test_no_tokens_are_no_outputs_and_have_gradients_of_zero():
  case = moe_cases.draw("full")

  def total(experts, x, gates):
    ids = jnp.zeros((0, 2), jnp.int32)
    out = moe.routed(experts, x, moe_cases.routing(ids, gates))
    return jnp.sum(out**2), out

  run = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
  (value, out), grads = jax.jit(run)(
    case.experts, jnp.zeros((0, DIM)), jnp.zeros((0, 2))
  )
  assert float(value) == 0.0 and out.shape == (0, DIM)
  assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))
