import dataclasses
import functools

import jax
import jax.numpy as jnp
import mask_cases
import numpy as np
import plain_moe
import pytest
from jax.tree_util import Partial

from tanbr_jax import masking, models, moe
from tanbr_jax.moe import seam

TINY = models.Decoder(models.preset("tiny"))  # 2 layers, 2 of 4, D = 16


@functools.cache
def tiny_params():
  return jax.jit(TINY.init)(jax.random.key(0))


@functools.cache
def compiled(name):
  given = {"capacity": 6} if name == "prefill" else {}
  return jax.jit(functools.partial(getattr(TINY, name), **given))


def random_router(scale=1.0):
  kernel = jax.random.normal(jax.random.key(3), (2, 16, 4))
  return {"kernel": scale * kernel}


IDS = jax.random.randint(jax.random.key(1), (2, 6), 0, 64)


def test_gradients_are_those_of_the_closed_form():
  """Of a linear loss plus beta times the regulariser, in float64 NumPy."""
  num_tokens, dim, num_experts, beta = 5, 4, 3, 0.7
  draw = np.random.default_rng(0).normal
  x, slope = draw(size=(num_tokens, dim)), draw(size=(num_tokens, dim))
  kernel = draw(size=(dim, num_experts))
  logits = jnp.asarray(draw(size=(num_tokens, num_experts)), jnp.float32)
  experts = moe.init_experts(
    jax.random.key(0), num_experts, model_dim=dim, expert_dim=6
  )
  is_token = np.arange(num_tokens) != 3
  routing = moe.top_k(logits, 2)

  def loss(mask_router):
    reroute = masking.beam_in_training(mask_router)
    observe = Partial(masking.observe_masks, mask_router)
    out, seen = moe.apply_layer(
      experts,
      jnp.asarray(x, jnp.float32),
      logits,
      routing,
      token_mask=jnp.asarray(is_token),
      reroute=seam.of_layer(reroute, 0),
      observe=seam.of_layer(observe, 0),
    )
    linear = jnp.vdot(out, jnp.asarray(slope, jnp.float32))
    return linear + beta * seen.mean, seen

  mask_router = {"kernel": jnp.asarray(kernel, jnp.float32)[None]}
  (_, seen), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    mask_router
  )
  arrays, expected = plain_moe.to_float64(experts), np.zeros_like(kernel)
  masks = 1 / (1 + np.exp(-x @ kernel))
  num_pairs, total, squares, active = 2 * is_token.sum(), 0.0, 0.0, 0
  for n in np.flatnonzero(is_token):
    pairs = zip(
      routing.expert_ids[n], np.float64(routing.gates[n]), strict=True
    )
    for e, gate in pairs:
      out = plain_moe.block(plain_moe.one_expert(arrays, int(e)), x[n])
      rise = masks[n, e] * (1 - masks[n, e])
      expected[:, e] += x[n] * rise * (gate * slope[n] @ out + beta / num_pairs)
      total += masks[n, e]
      squares += masks[n, e] ** 2
      active += masks[n, e] >= 0.5
  # Float32 sums of a few dozen products of size one.
  np.testing.assert_allclose(grads["kernel"][0], expected, atol=2e-5)
  assert float(seen.mean) == pytest.approx(total / num_pairs, abs=1e-6)
  assert float(seen.mean_square) == pytest.approx(squares / num_pairs, abs=1e-6)
  assert float(seen.num_active) == pytest.approx(active / is_token.sum())
  assert 0 < active < num_pairs


def test_zero_masks_change_no_bit():
  run, params = compiled("apply"), tiny_params()
  zero = masking.init_mask_router(TINY)
  plain = run(params, IDS)
  for reroute in (masking.beam(zero), masking.beam_in_training(zero)):
    np.testing.assert_array_equal(run(params, IDS, reroute=reroute), plain)


def test_a_mask_of_exactly_one_half_is_on_unless_it_has_to_be_more():
  given = mask_cases.layer([[0.3, 0.5, 0.1, 0.1]])
  router = masking.init_mask_router(mask_cases.MODEL)
  chosen = {1: 5 / 9, 0: 3 / 9, 2: 1 / 9}
  for is_strict, expected in ((False, chosen), (True, {})):
    (found,) = mask_cases.choose(
      masking.beam(router, is_strict=is_strict), given
    )
    assert found == pytest.approx(expected, rel=1e-6)
    (gates,) = mask_cases.choose(
      masking.beam_in_training(router, is_strict=is_strict), given
    )
    assert gates == pytest.approx(dict.fromkeys(chosen, 0.0) | expected)


def test_masked_experts_are_not_read_and_training_is_inference():
  """With a mask for every second expert, off for all tokens."""
  run, params = compiled("apply"), tiny_params()
  router = random_router()
  hard = run(params, IDS, reroute=masking.beam(router))
  trained = run(params, IDS, reroute=masking.beam_in_training(router))
  # Adding zeros in another order of the sums: a few units in the last place.
  np.testing.assert_allclose(hard, trained, atol=2e-5)
  observe = masking.observe_activity()
  _, seen = run(params, IDS, reroute=masking.beam(router), observe=observe)
  assert (seen.num_pairs < 2 * 12).all() and (seen.num_pairs > 0).all()
  # A layer whose masks are all off reads none of its experts: NaN stays away.
  layer = params["params"]["layer_1"]
  own = layer["experts"]["stack"]
  stack = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), own)
  stack = dataclasses.replace(stack, shared=own.shared)
  experts = {**layer["experts"], "stack": stack}
  broken = {**params["params"], "layer_1": {**layer, "experts": experts}}
  off = moe.mask_experts(jnp.array([[True] * 4, [False] * 4]))
  found = run({"params": broken}, IDS, reroute=off)
  np.testing.assert_array_equal(found, run(params, IDS, reroute=off))
  assert np.isfinite(found).all()


def test_prefill_and_decoding_mask_as_the_whole_sequence_does():
  params, reroute = tiny_params(), masking.beam(random_router())
  observe = masking.observe_activity()
  whole, total = compiled("apply")(
    params, IDS, reroute=reroute, observe=observe
  )
  logits, cache, seen = compiled("prefill")(
    params, IDS[:, :5], reroute=reroute, observe=observe
  )
  np.testing.assert_allclose(logits, whole[:, 4], atol=2e-5)
  logits, cache, more = compiled("decode_step")(
    params, cache, IDS[:, 5], reroute=reroute, observe=observe
  )
  np.testing.assert_allclose(logits, whole[:, 5], atol=2e-5)
  np.testing.assert_array_equal(
    seen.num_by_expert + more.num_by_expert, total.num_by_expert
  )
  new = models.generate(TINY, params, IDS, max_new_tokens=1, reroute=reroute)
  np.testing.assert_array_equal(new[:, 0], np.argmax(whole[:, 5], axis=-1))


def test_one_expert_may_be_switched_off_and_nothing_is_left():
  given = mask_cases.layer([[0.7, 0.1, 0.1, 0.1]] * 2, num_selected=1)
  # Expert 0 is off where the first value is negative.
  hidden = jnp.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
  router = masking.init_mask_router(mask_cases.with_one_expert())
  router = {"kernel": router["kernel"].at[:, 0].set(1.0)}
  found = mask_cases.choose(masking.beam(router), given._replace(hidden=hidden))
  assert found == [{0: 1.0}, {}]


def test_soft_masks_and_temperatures():
  given = mask_cases.layer([[0.3, 0.5, 0.1, 0.1]])
  router = {"kernel": jnp.full((2, 4, 4), -0.25)}
  # The logit is -1, over the temperature.
  for temperature, mask in ((1.0, 1 / (1 + np.e)), (0.5, 1 / (1 + np.e**2))):
    soft = masking.beam_in_training(
      router, form="soft", temperature=temperature
    )
    (gates,) = mask_cases.choose(soft, given)
    assert gates[1] == pytest.approx(mask * 5 / 9, rel=1e-5)
  (gates,) = mask_cases.choose(masking.beam_in_training(router), given)
  assert gates == {1: 0.0, 0: 0.0, 2: 0.0}


def test_refuses_the_mask_router_of_another_model():
  other = masking.init_mask_router(mask_cases.MODEL)
  for check, message in (
    (
      lambda: masking.check_mask_router(TINY, other),
      r"= \(2, 16, 4\) for this model, got \(2, 4, 4\)",
    ),
    (
      lambda: TINY.apply(tiny_params(), IDS, reroute=masking.beam(other)),
      r"= \(16, 4\) in this layer, got \(4, 4\)",
    ),
    (
      lambda: masking.beam_in_training(other, form="firm"),
      "got form='firm'",
    ),
    (
      lambda: masking.beam_in_training(other, temperature=0.0),
      "temperature must be positive, got temperature=0.0",
    ),
    (
      lambda: masking.init_mask_router(models.dense_form(TINY)),
      "got num_experts=None",
    ),
  ):
    with pytest.raises(ValueError, match=message) as error:
      check()
    assert "\n" not in str(error.value)
