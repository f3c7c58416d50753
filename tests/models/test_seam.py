"""Both models through the seam: what is rerouted and what is observed."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import models, moe
from tanbr_jax.models import decoder
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


@functools.cache
def compiled(model):
  return jax.jit(model.apply)


@pytest.fixture(scope="module", params=["byte_lm", "decoder"])
def case(request, tiny):
  if request.param == "byte_lm":
    return Case(tiny.model, tiny.params, tiny.ids[:, :6])
  ids = jax.random.randint(jax.random.key(1), (2, 6), 0, 64)
  return Case(DECODER, DECODER.init(jax.random.key(0)), ids)


def of_case(case):
  config = case.model.config
  return config.num_layers, case.ids.size, config.num_experts


# Reroutes and observers are module-level functions: nothing compiles twice.
def same(tree, layer):
  del tree
  return layer.routing


def nobody(tree, layer):
  del tree
  ids = jnp.full_like(layer.routing.expert_ids, moe.NO_EXPERT)
  return layer.routing._replace(expert_ids=ids)


def named(ids, layer):
  """Everybody to these experts [K], at half gates."""
  shape = (layer.hidden.shape[0], ids.shape[0])
  return layer.routing._replace(
    expert_ids=jnp.broadcast_to(ids[None], shape),
    gates=jnp.full(shape, 0.5),
  )


def scaled(scale, layer):
  return moe.scale_gates(layer.routing, 1.0)._replace(
    gates=layer.routing.gates * scale
  )


def see_all(tree, layer, output):
  del tree
  return layer, output


@moe.needs_pair_outputs
def see_pairs(tree, layer, output):
  del tree
  return layer, output


def test_no_reroute_is_the_identity_to_the_bit(case):
  found = case(reroute=Partial(same, ()))
  np.testing.assert_array_equal(found, case())
  found, _ = case(observe=Partial(moe.observe_experts, ()))
  np.testing.assert_array_equal(found, case())


def test_a_mask_is_the_masked_forward(case):
  shape = of_case(case)
  mask = jax.random.bernoulli(jax.random.key(3), 0.6, shape)
  _, (layer, output) = case(
    reroute=moe.mask_experts(mask), observe=Partial(see_all, ())
  )
  run = jax.jit(jax.vmap(moe.masked))
  routing = jax.vmap(functools.partial(top_k, case))(layer.router_logits)
  expected = run(layer.experts, layer.hidden, routing, mask)
  np.testing.assert_allclose(output.output, expected, **CLOSE)
  assert (np.asarray(layer.routing.expert_ids) == moe.NO_EXPERT).any()


def top_k(case, logits):
  renormalise = getattr(case.model.config, "renormalise", True)
  return moe.top_k(
    logits, case.model.config.num_selected, renormalise=renormalise
  )


def test_without_experts_the_shared_block_is_left(case):
  stripped = dict(case.params["params"])
  for name in ("layer_0", "layer_1"):
    experts = dict(stripped[name]["experts"])
    stack = experts["stack"]
    experts["stack"] = dataclasses.replace(
      stack, w_out=jnp.zeros_like(stack.w_out)
    )
    stripped[name] = {**stripped[name], "experts": experts}
  expected = case._replace(params={"params": stripped})()
  np.testing.assert_allclose(
    case(reroute=Partial(nobody, ())), expected, **CLOSE
  )


def test_an_expert_that_is_named_twice_counts_twice(case):
  once, twice = (
    case(reroute=Partial(named, jnp.array(ids, jnp.int32)))
    for ids in ([[1], [2]], [[1, 1], [2, 2]])
  )
  dense, merged = models.merge(
    case.model, case.params, jnp.eye(of_case(case)[2])[jnp.array([1, 2])]
  )
  alone = compiled(dense)(merged, case.ids)
  np.testing.assert_allclose(twice, alone, **CLOSE)
  assert np.abs(np.asarray(once) - np.asarray(alone)).max() > 1e-3


def test_what_is_observed_is_what_the_layer_does(case):
  _, (layer, output) = case(observe=Partial(see_pairs, ()))
  num_layers, num_tokens, num_experts = of_case(case)
  assert layer.router_logits.shape == (num_layers, num_tokens, num_experts)
  assert layer.token_mask.all()
  for index in range(num_layers):
    one, out = jax.tree.map(lambda leaf, i=index: leaf[i], (layer, output))
    kernel = case.params["params"][f"layer_{index}"]["experts"]["router"]
    logits = np.float64(one.hidden) @ np.float64(kernel["kernel"])
    np.testing.assert_allclose(one.router_logits, logits, atol=1e-5)
    gates = np.float64(one.routing.gates)
    pairs = np.float64(out.pair_outputs)
    total = np.einsum("nk,nkd->nd", gates, pairs)
    if one.experts.shared is not None:
      total += np.asarray(moe.apply(one.experts.shared, one.hidden))
    np.testing.assert_allclose(out.output, total, **CLOSE)
    for token, pair in ((0, 0), (num_tokens - 1, 1)):
      expert = int(one.routing.expert_ids[token, pair])
      own = dataclasses.replace(one.experts, shared=None)
      block = moe.merge(own, jnp.eye(num_experts)[expert])
      np.testing.assert_allclose(
        pairs[token, pair],
        moe.apply(block, one.hidden[token][None])[0],
        **CLOSE,
      )


def test_pair_outputs_of_skipped_pairs_are_zero_and_unasked_ones_absent(case):
  _, (_, output) = case(
    reroute=Partial(nobody, ()), observe=Partial(see_pairs, ())
  )
  assert not output.pair_outputs.any()
  _, (_, output) = case(observe=Partial(see_all, ()))
  assert output.pair_outputs is None


def test_gradients_and_vmap_go_through_the_tree(case):
  @jax.jit
  def total(scale):
    reroute = Partial(scaled, scale)
    logits = case.model.apply(case.params, case.ids, reroute=reroute)
    return jnp.sum(jnp.sin(logits))

  scale, step = jnp.array([0.8, 1.3]), 1e-2
  grads = jax.grad(total)(scale)
  moved = scale[None] + step * jnp.concatenate([jnp.eye(2), -jnp.eye(2)])
  values = np.float64(jax.vmap(total)(moved))
  np.testing.assert_allclose(
    values, [total(one) for one in moved], rtol=1e-5, atol=1e-3
  )
  slopes = (values[:2] - values[2:]) / (2 * step)
  # The quotient errs by step^2 / 6 of a third derivative, and by the rounding
  # of a sum of hundreds of sines, 1e-4, over the step.
  np.testing.assert_allclose(grads, slopes, rtol=0.02, atol=0.05)
  assert np.abs(grads).min() > 0.05


def test_nothing_is_added_where_the_seam_is_not_used(case, monkeypatch):
  trace = lambda: str(  # noqa: E731
    jax.make_jaxpr(lambda p, i: case.model.apply(p, i))(case.params, case.ids)
  )
  found = trace()

  def plain(experts, hidden, router_logits, routing, **given):
    return moe.routed(experts, hidden, routing), None

  monkeypatch.setattr(seam, "apply_layer", plain)
  monkeypatch.setattr(moe, "apply_layer", plain)
  decoder._run_layer.clear_cache()
  assert found == trace()
  decoder._run_layer.clear_cache()


def padded(ids, lengths, side):
  """The first tokens of each row on one side, junk on the other, the mask."""
  junk, mask = np.full(ids.shape, 7), np.zeros(ids.shape, bool)
  for row, length in enumerate(lengths):
    where = slice(0, length) if side == "right" else slice(-length, None)
    junk[row, where], mask[row, where] = ids[row, :length], True
  return jnp.asarray(junk), jnp.asarray(mask)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_and_is_not_observed(case, side):
  lengths = (6, 4)
  ids, mask = padded(np.asarray(case.ids), lengths, side)
  observe = Partial(moe.observe_experts, ())
  logits, seen = case(ids, attention_mask=mask, observe=observe)
  assert np.isfinite(logits).all()
  parts = []
  for row, length in enumerate(lengths):
    alone, part = case(case.ids[row : row + 1, :length], observe=observe)
    np.testing.assert_allclose(
      np.asarray(logits)[row, np.asarray(mask)[row]], alone[0], **CLOSE
    )
    parts.append(part)
  total = jax.tree.map(lambda one, other: one + other, *parts)
  assert (seen.num_tokens == 10).all()
  np.testing.assert_array_equal(seen.num_pairs, total.num_pairs)
  np.testing.assert_allclose(seen.gate_mass, total.gate_mass, atol=1e-5)
  np.testing.assert_allclose(seen.probability, total.probability, atol=1e-5)
  # Not even a reroute wakes padding up.
  everybody = jnp.zeros((2, 1), jnp.int32)
  _, seen = case(
    ids,
    attention_mask=mask,
    observe=observe,
    reroute=Partial(named, everybody),
  )
  np.testing.assert_array_equal(seen.num_pairs[:, 0], [10, 10])


@pytest.mark.parametrize("side", [None, "left", "right"])
def test_prefill_and_decoding_observe_what_the_whole_sequence_does(side):
  params = DECODER.init(jax.random.key(0))
  ids = jax.random.randint(jax.random.key(2), (2, 6), 0, 64)
  lengths = (4, 4) if side is None else (4, 2)
  prompt, mask = padded(np.asarray(ids)[:, :4], lengths, side)
  observe = Partial(moe.observe_experts, ())
  logits, cache, seen = jax.jit(functools.partial(DECODER.prefill, capacity=6))(
    params,
    prompt,
    attention_mask=None if side is None else mask,
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
    ({"observe": Partial(see_all, jnp.float32(1))}, r"observe .* got \(\)"),
    ({"reroute": same}, "reroute must be a jax.tree_util.Partial"),
    ({"attention_mask": jnp.ones((2, 5))}, r"\(2, 6\), got \(2, 5\)"),
  ):
    with pytest.raises(ValueError, match=message) as error:
      case.model.apply(case.params, case.ids, **given)
    assert "\n" not in str(error.value)
  for name in ("reroute", "observe"):
    with pytest.raises(ValueError, match=f"takes no {name}"):
      dense.apply(case.params, case.ids, **{name: Partial(same, ())})
