import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_decoder

from tanbr_jax import models, moe

CONFIG = models.preset("tiny")
MODEL = models.Decoder(CONFIG)
DENSE = models.Decoder(dataclasses.replace(CONFIG, num_experts=None))
IDS = jax.random.randint(jax.random.key(1), (2, 6), 0, CONFIG.vocab_size)
# Values near 1 after two layers in float32, whose sums differ in their order.
CLOSE = {"atol": 2e-5, "rtol": 0}


@pytest.fixture(scope="module")
def params():
  return jax.jit(MODEL.init)(jax.random.key(0))


@functools.cache
def compiled(model, name, **fixed):
  return jax.jit(functools.partial(getattr(model, name), **fixed))


def logits(model, params, ids=IDS, **given):
  return np.asarray(compiled(model, "apply")(params, ids, **given))


def decode(model, params, num_read, reroute=None):
  """Logits [B, S - num_read + 1, V] of reading, then one token at a time."""
  ids, found = IDS, []
  if num_read:
    read = compiled(model, "prefill", capacity=IDS.shape[1])
    last, cache = read(params, ids[:, :num_read], reroute=reroute)
    found.append(last)
  else:
    cache = model.init_cache(ids.shape[0], ids.shape[1])
  step = compiled(model, "decode_step")
  for position in range(num_read, ids.shape[1]):
    last, cache = step(params, cache, ids[:, position], reroute=reroute)
    found.append(last)
  assert int(cache.length) == ids.shape[1]
  return np.stack(found, axis=1)


def shaken(params):
  """The same with scales away from one, in which a scale can hide."""
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(9), len(leaves))
  leaves = [
    leaf + 0.3 * jax.random.normal(key, leaf.shape) if leaf.ndim == 1 else leaf
    for key, leaf in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(structure, leaves)


def test_logits_are_those_of_the_loops(params):
  params = shaken(params)
  wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  slow = [slow_decoder.logits(wide, ids, CONFIG) for ids in np.asarray(IDS)]
  np.testing.assert_allclose(logits(MODEL, params), slow, **CLOSE)


def test_unscaled_gates_and_a_tied_head_are_those_of_the_loops(params):
  router = models.RouterOptions(renormalise=False)
  shape = dataclasses.replace(CONFIG, router=router, tied=True)
  params = shaken(params)
  wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  slow = [slow_decoder.logits(wide, ids, shape) for ids in np.asarray(IDS)]
  found = logits(models.Decoder(shape), params)
  np.testing.assert_allclose(found, slow, **CLOSE)


@pytest.mark.parametrize("num_read", [0, 4])
def test_decoding_with_a_cache_is_the_full_forward(params, num_read):
  found = decode(MODEL, params, num_read)
  whole = logits(MODEL, params)
  np.testing.assert_allclose(found, whole[:, max(num_read - 1, 0) :], **CLOSE)


def test_a_merged_model_decodes_as_it_reads(params):
  dense, merged = merge(params, [0.1, 0.2, 0.3, 0.4])
  found = decode(dense, merged, 4)
  np.testing.assert_allclose(found, logits(dense, merged)[:, 3:], **CLOSE)


def test_a_full_cache_gives_nan(params):
  step = compiled(MODEL, "decode_step")
  for length, is_full in ((5, False), (6, True)):
    cache = MODEL.init_cache(*IDS.shape)._replace(length=jnp.int32(length))
    found, _ = step(params, cache, IDS[:, 0])
    assert np.isnan(found).all() == is_full


def test_a_later_token_changes_no_earlier_logit(params):
  changed = IDS.at[:, 4].set((IDS[:, 4] + 1) % CONFIG.vocab_size)
  before, after = logits(MODEL, params), logits(MODEL, params, changed)
  np.testing.assert_array_equal(before[:, :4], after[:, :4])
  assert (np.abs(before[:, 4:] - after[:, 4:]).max(axis=-1) > 1e-3).all()


def merge(params, weights):
  return models.merge(MODEL, params, jnp.array(weights))


def with_router(params, always):
  """Routers of zeros, which choose the first expert: `always`, put there."""
  tree = dict(params["params"])
  for layer in range(CONFIG.num_layers):
    name = f"layer_{layer}"
    experts = dict(tree[name]["experts"])
    kernel = jnp.zeros_like(experts["router"]["kernel"])
    experts["router"] = {"kernel": kernel}
    order = jnp.array([always, *(e for e in range(4) if e != always)])
    experts["stack"] = permute(experts["stack"], order)
    tree[name] = {**tree[name], "experts": experts}
  return {"params": tree}


def permute(stack, order):
  arrays = {
    name: getattr(stack, name)[order] for name in ("w_in", "w_out", "w_gate")
  }
  return dataclasses.replace(stack, **arrays)


@pytest.mark.parametrize("expert", [0, 2])
def test_one_hot_weights_are_a_router_that_picks_that_expert(params, expert):
  single = models.Decoder(dataclasses.replace(CONFIG, num_selected=1))
  always = with_router(params, expert)
  dense, merged = merge(params, np.eye(4, dtype="f4")[expert])
  np.testing.assert_allclose(
    logits(single, always), logits(dense, merged), **CLOSE
  )


def test_merged_parameters_are_those_of_the_dense_model(params):
  dense, merged = merge(params, [0.25] * 4)
  assert dense == DENSE
  fresh = jax.eval_shape(DENSE.init, jax.random.key(2))
  assert jax.tree.structure(merged) == jax.tree.structure(fresh)
  assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, fresh)
  # Two layers of three 16 x 24 float32 matrices, and the shared 16 x 12.
  shared = 2 * 3 * 16 * 12 * 4
  one = 2 * 3 * 16 * 24 * 4
  assert models.expert_bytes(params) == 4 * one + shared
  assert models.expert_bytes(merged) == one + shared


def test_layers_may_have_weights_of_their_own(params):
  weights = np.eye(4, dtype="f4")[[3, 1]]
  _, merged = merge(params, weights)
  for layer, expert in enumerate((3, 1)):
    experts = params["params"][f"layer_{layer}"]["experts"]["stack"]
    block = merged["params"][f"layer_{layer}"]["experts"]["stack"]
    for name in ("w_in", "w_gate", "w_out"):
      np.testing.assert_array_equal(
        getattr(block, name), getattr(experts, name)[expert]
      )


def test_a_full_mask_is_the_routed_forward(params):
  full = moe.mask_experts(jnp.ones((2, 4), bool))
  np.testing.assert_allclose(
    logits(MODEL, params, reroute=full), logits(MODEL, params), **CLOSE
  )


def test_masks_by_layer_and_by_token_agree(params):
  by_layer = jnp.array([[True, False, True, False], [False, True, True, True]])
  by_token = jnp.broadcast_to(by_layer[:, None], (2, IDS.size, 4))
  by_layer, by_token = (moe.mask_experts(mask) for mask in (by_layer, by_token))
  found = logits(MODEL, params, reroute=by_layer)
  np.testing.assert_allclose(
    logits(MODEL, params, reroute=by_token), found, **CLOSE
  )
  assert np.abs(found - logits(MODEL, params)).max() > 1e-3
  np.testing.assert_allclose(decode(MODEL, params, 0, by_layer), found, **CLOSE)


def test_a_masked_expert_adds_nothing(params):
  """Masking an expert is making its last matrix zero."""
  tree = dict(params["params"])
  for layer in range(2):
    name = f"layer_{layer}"
    stack = tree[name]["experts"]["stack"]
    stack = dataclasses.replace(stack, w_out=stack.w_out.at[2].set(0.0))
    experts = {**tree[name]["experts"], "stack": stack}
    tree[name] = {**tree[name], "experts": experts}
  mask = jnp.broadcast_to(jnp.arange(4)[None] != 2, (2, 4))
  found = logits(MODEL, params, reroute=moe.mask_experts(mask))
  np.testing.assert_allclose(found, logits(MODEL, {"params": tree}), **CLOSE)


def test_bfloat16_stays_near_float32():
  shape = models.preset(
    "tiny", shared_dim=None, is_gated=False, activation="relu", tied=True
  )
  wide = models.Decoder(shape)
  narrow = models.Decoder(dataclasses.replace(shape, dtype="bfloat16"))
  params = jax.jit(narrow.init)(jax.random.key(0))
  assert "head" not in params["params"]
  tree = params["params"]["layer_0"]["experts"]
  stack = {leaf.dtype.name for leaf in jax.tree.leaves(tree["stack"])}
  assert stack == {"bfloat16"}
  assert tree["router"]["kernel"].dtype == jnp.float32
  widened = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
  # The merged form, because a rounding may change a token's experts.
  weights = jnp.full(4, 0.25)
  low = logits(*models.merge(narrow, params, weights))
  high = logits(*models.merge(wide, widened, weights))
  # Logits have unit variance; bfloat16 rounds each step by 2^-9.
  np.testing.assert_allclose(low, high, atol=0.06)
  assert low.dtype == np.float32


def test_an_empty_batch_has_empty_logits(params):
  for shape in ((0, 4), (2, 0)):
    found = MODEL.apply(params, jnp.zeros(shape, jnp.int32))
    assert found.shape == (*shape, CONFIG.vocab_size)


def test_refuses_bad_input(params):
  short = models.Decoder(dataclasses.replace(CONFIG, context=5))
  with pytest.raises(ValueError, match="length=6, context=5"):
    short.apply(params, IDS)
  with pytest.raises(ValueError, match="capacity=9, length=4, context=5"):
    short.prefill(params, IDS[:, :4], capacity=9)
  with pytest.raises(ValueError, match="capacity=5, length=6"):
    MODEL.prefill(params, IDS, capacity=5)
  with pytest.raises(ValueError, match=r"\[B, S\], got \(6,\)"):
    MODEL.apply(params, IDS[0])
  for mask, message in (
    (jnp.ones((2, 3), bool), r"bool\(3,\) for \[N, E\] = \(12, 4\)"),
    (jnp.ones((2, 4)), r"float32\(2, 4\)"),
    (jnp.ones((3, 4), bool), r"for L=2, got \(3, 4\)"),
  ):
    with pytest.raises(ValueError, match=message):
      MODEL.apply(params, IDS, reroute=moe.mask_experts(mask))
  with pytest.raises(ValueError, match=r"\(3,\) for E=4, L=2"):
    merge(params, [0.5, 0.25, 0.25])


MIXED = models.Decoder(
  dataclasses.replace(CONFIG, num_layers=3, dense_layers=(1,), dense_dim=10)
)


@pytest.fixture(scope="module")
def mixed(params):
  """The two layers, and between them one with a part of an expert."""
  tree = dict(params["params"])
  stack = tree["layer_0"]["experts"]["stack"]
  block = moe.FeedForward(
    w_in=stack.w_in[0, :, :10],
    w_gate=stack.w_gate[0, :, :10],
    w_out=stack.w_out[0, :10],
    activation="silu",
  )
  tree["layer_2"] = tree["layer_1"]
  tree["layer_1"] = {**tree["layer_0"], "experts": {"stack": block}}
  return {"params": tree}


def test_layers_without_experts_are_not_counted(mixed):
  assert MIXED.config.moe_layers == (0, 2)
  fresh = jax.eval_shape(MIXED.init, jax.random.key(0))
  assert jax.tree.map(jnp.shape, mixed) == jax.tree.map(jnp.shape, fresh)
  stacks = [mixed["params"][f"layer_{i}"]["experts"]["stack"] for i in range(3)]
  # Weights and masks are [2, E], for the first and the last layer.
  weights = jnp.eye(4)[jnp.array([3, 1])]
  dense, merged = models.merge(MIXED, mixed, weights)
  blocks = [
    merged["params"][f"layer_{i}"]["experts"]["stack"] for i in range(3)
  ]
  assert blocks[1] is stacks[1]
  for i, expert in ((0, 3), (2, 1)):
    np.testing.assert_array_equal(blocks[i].w_out, stacks[i].w_out[expert])
  fresh = jax.eval_shape(dense.init, jax.random.key(0))
  assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, fresh)
  with pytest.raises(ValueError, match="E=4, L=2"):
    models.merge(MIXED, mixed, jnp.ones((3, 4)))


def test_a_mask_reaches_its_own_layer_of_a_mixed_model(mixed):
  """The last layer of experts without any is one whose matrices are zero."""
  mask = jnp.array([[True] * 4, [False] * 4])
  found = logits(MIXED, mixed, reroute=moe.mask_experts(mask))
  layer = mixed["params"]["layer_2"]
  stack = layer["experts"]["stack"]
  none = dataclasses.replace(stack, w_out=jnp.zeros_like(stack.w_out))
  layer = {**layer, "experts": {**layer["experts"], "stack": none}}
  changed = {"params": {**mixed["params"], "layer_2": layer}}
  np.testing.assert_allclose(found, logits(MIXED, changed), **CLOSE)
