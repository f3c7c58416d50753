"""Both models through the seam: what is rerouted and what is observed."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import plain_moe
import pytest
from jax.tree_util import Partial

from tanbr_jax import models, moe
from tanbr_jax.models import decoder_layer
from tanbr_jax.moe import seam

DECODER = models.Decoder(models.preset("tiny"))
# Logits near 1 after two layers in float32, whose sums differ in their order.
CLOSE = {"atol": 2e-5, "rtol": 0}


class Case(NamedTuple):
  model: models.Model
  params: models.Params
  ids: jax.Array  # [2, 6]

  def __call__(self, ids=None, **given):
    return compiled(self.model)(
      self.params, self.ids if ids is None else ids, **given
    )

  def see(self, input_ids=None, mask=None, **given):
    """Logits, and what a generic reroute and observer saw; one program."""
    input_ids = self.ids if input_ids is None else input_ids
    run = see_program(self.model)
    return run(self.params, input_ids, mask, change(self, **given))


@functools.cache
def compiled(model):
  return jax.jit(model.apply)


@functools.cache
def see_program(model):
  def run(params, ids, mask, tree):
    return model.apply(
      params,
      ids,
      attention_mask=mask,
      reroute=Partial(changed, tree),
      observe=Partial(see_pairs, ()),
    )

  return jax.jit(run)


class Change(NamedTuple):
  """What a layer's routing becomes; leaves of [L, ...]."""

  ids: jax.Array  # [L, K], everybody's experts where `is_forced`
  is_forced: jax.Array  # [L] bool
  scale: jax.Array  # [L], of the gates; forced ones are .5


def change(case, ids=None, scale=(1.0, 1.0)):
  num_layers, num_selected = 2, case.model.config.num_selected
  forced = jnp.zeros((num_layers, num_selected), jnp.int32)
  if ids is not None:
    forced = jnp.asarray(ids, jnp.int32)
  is_forced = jnp.full(num_layers, ids is not None)
  return Change(forced, is_forced, jnp.asarray(scale, jnp.float32))


# Module-level functions: nothing compiles twice.
def changed(tree, layer):
  routing = layer.routing
  gates = jnp.where(tree.is_forced, 0.5, routing.gates)
  ids = jnp.broadcast_to(tree.ids[None], routing.expert_ids.shape)
  return routing._replace(
    expert_ids=jnp.where(tree.is_forced, ids, routing.expert_ids),
    gates=gates * tree.scale,
  )


def same(tree, layer):
  del tree
  return layer.routing


@moe.needs_pair_outputs
def see_pairs(tree, layer, output):
  del tree
  return layer, output


def see_all(tree, layer, output):
  del tree
  return layer, output


@pytest.fixture(scope="module", params=["byte_lm", "decoder"])
def case(request, tiny):
  if request.param == "byte_lm":
    return Case(tiny.model, tiny.params, tiny.ids[:, :6])
  ids = jax.random.randint(jax.random.key(1), (2, 6), 0, 64)
  return Case(DECODER, jax.jit(DECODER.init)(jax.random.key(0)), ids)


def of_case(case):
  config = case.model.config
  return config.num_layers, case.ids.size, config.num_experts


def test_the_identity_reroute_is_none_to_the_bit(case):
  found, (layer, _) = case.see()
  np.testing.assert_array_equal(found, case())
  assert layer.token_mask.all()


def test_without_experts_the_shared_block_is_left(case):
  stripped = dict(case.params["params"])
  for name in ("layer_0", "layer_1"):
    experts = dict(stripped[name]["experts"])
    stack = experts["stack"]
    experts["stack"] = dataclasses.replace(
      stack, w_out=jnp.zeros_like(stack.w_out)
    )
    stripped[name] = {**stripped[name], "experts": experts}
  found, (_, output) = case.see(ids=jnp.full((2, 2), moe.NO_EXPERT))
  expected = case._replace(params={"params": stripped})()
  np.testing.assert_allclose(found, expected, **CLOSE)
  assert not output.pair_outputs.any()


def test_an_expert_that_is_named_twice_counts_twice(case):
  once, _ = case.see(ids=[[1, moe.NO_EXPERT], [2, moe.NO_EXPERT]])
  twice, _ = case.see(ids=[[1, 1], [2, 2]])
  dense, merged = models.merge(
    case.model, case.params, jnp.eye(of_case(case)[2])[jnp.array([1, 2])]
  )
  alone = compiled(dense)(merged, case.ids)
  np.testing.assert_allclose(twice, alone, **CLOSE)
  assert np.abs(np.asarray(once) - np.asarray(alone)).max() > 1e-3


def test_a_merged_model_is_observed_without_a_router(case):
  """Merged of one expert a layer: what that expert sees in the whole model."""
  _, (layer, output) = case.see(ids=[[1, 1], [2, 2]])
  dense, merged = models.merge(
    case.model, case.params, jnp.eye(of_case(case)[2])[jnp.array([1, 2])]
  )
  run = compiled(dense)
  logits, (seen, out) = run(merged, case.ids, observe=Partial(see_all, ()))
  np.testing.assert_array_equal(logits, run(merged, case.ids))
  assert seen.router_logits is None and seen.routing is None
  assert seen.token_mask.all() and out.pair_outputs is None
  np.testing.assert_allclose(seen.hidden, layer.hidden, **CLOSE)
  np.testing.assert_allclose(out.output, output.output, **CLOSE)
  # Padding on the left is neither seen nor does it change the rest.
  mask = jnp.array([[0, 0, 1, 1, 1, 1]])
  usage = models.observe_usage(case.params, (0, 1))
  _, padded = run(merged, case.ids[1:], attention_mask=mask, observe=usage)
  _, alone = run(merged, case.ids[1:, 2:], observe=usage)
  np.testing.assert_allclose(padded, alone, **CLOSE)
  _, full = run(merged, case.ids, observe=usage)
  for index in range(2):
    kernel = case.params["params"][f"layer_{index}"]["experts"]["router"]
    scores = np.float64(seen.hidden[index]) @ np.float64(kernel["kernel"])
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(full[index], shares.mean(0), rtol=1e-4)


def test_what_is_observed_is_what_the_layer_does(case):
  _, (layer, output) = case.see()
  num_layers, num_tokens, num_experts = of_case(case)
  assert layer.router_logits.shape == (num_layers, num_tokens, num_experts)
  for index in range(num_layers):
    one, out = jax.tree.map(lambda leaf, i=index: leaf[i], (layer, output))
    kernel = case.params["params"][f"layer_{index}"]["experts"]["router"]
    logits = np.float64(one.hidden) @ np.float64(kernel["kernel"])
    np.testing.assert_allclose(one.router_logits, logits, atol=1e-5)
    gates, pairs = np.float64(one.routing.gates), np.float64(out.pair_outputs)
    total = np.einsum("nk,nkd->nd", gates, pairs)
    arrays = plain_moe.to_float64(one.experts)
    hidden = np.float64(one.hidden)
    total += [plain_moe.shared(arrays, row) for row in hidden]
    np.testing.assert_allclose(out.output, total, **CLOSE)
    for token, pair in ((0, 0), (num_tokens - 1, 1)):
      expert = int(one.routing.expert_ids[token, pair])
      own = plain_moe.one_expert(arrays, expert)
      np.testing.assert_allclose(
        pairs[token, pair], plain_moe.block(own, hidden[token]), **CLOSE
      )


def test_a_mask_is_the_masked_forward_and_pairs_are_there_where_asked_for():
  init = functools.partial(moe.init_experts, model_dim=4, expert_dim=8)
  experts = jax.jit(init, static_argnums=1)(jax.random.key(0), 3)
  x = jax.random.normal(jax.random.key(1), (5, 4))
  logits = x[:, :3]
  masks = jnp.array([[True, False, True], [False, True, True]])

  def output_and_pairs(layer, output):
    return output

  def run(observe, layer):
    return moe.apply_layer(
      experts,
      x,
      logits,
      moe.top_k(logits, 2),
      reroute=seam.of_layer(moe.mask_experts(masks), layer),
      observe=Partial(observe),
    )

  run = jax.jit(run, static_argnums=(0, 1))
  by_mask = jax.jit(
    lambda mask: moe.masked(experts, x, moe.top_k(logits, 2), mask)
  )
  for layer in range(2):
    out, seen = run(output_and_pairs, layer)
    assert seen.pair_outputs is None
    masked = by_mask(masks[layer])
    np.testing.assert_allclose(out, masked, atol=1e-6)
  asking = moe.needs_pair_outputs(lambda layer, output: output)
  for observe in (asking, functools.partial(asking), Partial(asking)):
    assert run(observe, 1)[1].pair_outputs.shape == (5, 2, 4)


def test_gradients_and_vmap_go_through_the_tree(case):
  def total(scale):
    tree = change(case)._replace(scale=scale)
    logits = case.model.apply(
      case.params, case.ids, reroute=Partial(changed, tree)
    )
    return jnp.sum(jnp.sin(logits))

  scale, step = jnp.array([0.8, 1.3]), 1e-2
  moved = scale[None] + step * jnp.concatenate([jnp.eye(2), -jnp.eye(2)])
  moved = jnp.concatenate([scale[None], moved])
  values, grads = jax.jit(jax.vmap(jax.value_and_grad(total)))(moved)
  values = np.float64(values)
  for value, one in zip(values, moved, strict=True):
    alone = np.float64(case.see(scale=one)[0])
    assert value == pytest.approx(np.sin(alone).sum(), abs=1e-2)
  slopes = (values[1:3] - values[3:]) / (2 * step)
  # The quotient errs by step^2 / 6 of a third derivative, and by the rounding
  # of a sum of hundreds of sines, 1e-4, over the step.
  np.testing.assert_allclose(grads[0], slopes, rtol=0.02, atol=0.05)
  assert np.abs(grads).min() > 0.05


def test_nothing_is_added_where_the_seam_is_not_used(case, monkeypatch):
  trace = lambda: str(  # noqa: E731
    jax.make_jaxpr(lambda p, i: case.model.apply(p, i))(case.params, case.ids)
  )
  found = trace()

  def plain(experts, hidden, router_logits, routing, **given):
    return moe.routed(experts, hidden, routing), None

  monkeypatch.setattr(moe, "apply_layer", plain)
  decoder_layer.run_layer.clear_cache()
  assert found == trace()
  decoder_layer.run_layer.clear_cache()


def padded(ids, lengths, side):
  """The first tokens of each row on one side, junk on the other, the mask."""
  junk, mask = np.full(ids.shape, 7), np.zeros(ids.shape, bool)
  for row, length in enumerate(lengths):
    where = slice(0, length) if side == "right" else slice(-length, None)
    junk[row, where], mask[row, where] = ids[row, :length], True
  return jnp.asarray(junk), jnp.asarray(mask)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_and_is_not_observed(case, side):
  ids, mask = padded(np.asarray(case.ids), (6, 4), side)
  logits, (layer, _) = case.see(ids, mask)
  assert np.isfinite(logits).all()
  np.testing.assert_array_equal(
    layer.token_mask, np.broadcast_to(mask.reshape(-1), (2, 12))
  )
  is_padding = ~np.asarray(layer.token_mask)
  assert (np.asarray(layer.routing.expert_ids)[is_padding] == -1).all()
  whole, (expected, _) = case.see()
  for row, length in enumerate((6, 4)):
    # A later token changes nothing before it: the whole sequences will do.
    here = np.asarray(mask)[row]
    np.testing.assert_allclose(
      np.asarray(logits)[row, here], whole[row, :length], **CLOSE
    )
    places = row * 6 + np.flatnonzero(here)
    found = np.asarray(layer.router_logits)[:, places]
    first = slice(row * 6, row * 6 + length)
    np.testing.assert_allclose(found, expected.router_logits[:, first], **CLOSE)
  # Not even a reroute wakes padding up.
  forced = change(case, ids=[[0, 1], [1, 2]])
  _, (layer, _) = see_program(case.model)(case.params, ids, mask, forced)
  chosen = np.asarray(layer.routing.expert_ids)
  assert (chosen[is_padding] == -1).all() and (chosen[~is_padding] >= 0).all()


def test_losses_and_statistics_leave_padding_out(case):
  def see(tree, layer, output):
    return (
      moe.observe_losses(tree, layer, output),
      moe.observe_tokens(tree, layer, output),
    )

  run = jax.jit(
    lambda ids, mask: case.model.apply(
      case.params, ids, attention_mask=mask, observe=Partial(see, ())
    )[1]
  )
  ids = np.asarray(case.ids)
  (losses, tokens), (alone, _) = (
    run(*padded(ids, lengths, "right")) for lengths in ((4, 6), (6, 6))
  )
  short, mask = padded(ids, (4, 6), "right")
  # The mean over ten tokens, from each token's own logits.
  _, (layer, _) = case.see(short, mask)
  logits = np.float64(layer.router_logits)[:, np.asarray(mask).reshape(-1)]
  squares = np.log(np.exp(logits).sum(-1)) ** 2
  np.testing.assert_allclose(losses.z, squares.mean(1), rtol=1e-5)
  assert np.abs(losses.load_balance - alone.load_balance).max() > 1e-3
  assert not np.asarray(tokens.entropy)[:, 4:6].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_prefill_and_decoding_observe_what_the_whole_sequence_does(side):
  params = jax.jit(DECODER.init)(jax.random.key(0))
  ids = jax.random.randint(jax.random.key(2), (2, 6), 0, 64)
  lengths = (4, 2)
  prompt, mask = padded(np.asarray(ids)[:, :4], lengths, side)
  observe = Partial(moe.observe_experts, ())
  logits, cache, seen = jax.jit(functools.partial(DECODER.prefill, capacity=6))(
    params,
    prompt,
    attention_mask=mask,
    observe=observe,
  )
  step = jax.jit(DECODER.decode_step)
  found = [logits]
  for position in range(2):
    tokens = jnp.stack(
      [ids[row, length + position] for row, length in enumerate(lengths)]
    )
    logits, cache, more = step(params, cache, tokens, observe=observe)
    found.append(logits)
    seen = jax.tree.map(lambda one, other: one + other, seen, more)
  parts = []
  for row, length in enumerate(lengths):
    whole, part = compiled(DECODER)(
      params, ids[row : row + 1, : length + 2], observe=observe
    )
    np.testing.assert_allclose(
      np.stack(found, 1)[row], whole[0, length - 1 :], **CLOSE
    )
    parts.append(part)
  total = jax.tree.map(lambda one, other: one + other, *parts)
  np.testing.assert_array_equal(seen.num_pairs, total.num_pairs)
  np.testing.assert_array_equal(seen.num_tokens, total.num_tokens)
  np.testing.assert_allclose(seen.gate_mass, total.gate_mass, atol=1e-5)


def test_refuses_what_does_not_fit(case):
  dense = models.dense_form(case.model)
  for given, message in (
    ({"reroute": Partial(same, jnp.ones(3))}, r"L=2, got \(3,\)"),
    ({"observe": Partial(see_pairs, jnp.float32(1))}, r"observe .* got \(\)"),
    ({"reroute": same}, "reroute must be a jax.tree_util.Partial"),
    ({"attention_mask": jnp.ones((2, 5))}, r"\(2, 6\), got \(2, 5\)"),
  ):
    with pytest.raises(ValueError, match=message) as error:
      case.model.apply(case.params, case.ids, **given)
    assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match="takes no reroute"):
    dense.apply(case.params, case.ids, reroute=Partial(same, ()))
