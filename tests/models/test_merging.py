import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models, moe


def _merge(tiny, weights):
  return models.merge(tiny.model, tiny.params, jnp.array(weights))


def test_one_hot_weights_are_the_model_with_that_expert_alone(tiny):
  _, dense_params = _merge(tiny, [0.0, 1.0, 0.0])
  # The same parameters as a routed model of one expert: another code path.
  config = dataclasses.replace(tiny.model.config, num_experts=1, num_selected=1)
  params = jax.tree.map(lambda leaf: leaf, tiny.params)
  for layer in ("layer_0", "layer_1"):
    experts = params["params"][layer]["experts"]
    experts["stack"] = jax.tree.map(lambda w: w[1:2], experts["stack"])
    experts["router"]["kernel"] = experts["router"]["kernel"][:, :1]
  single = jax.jit(lambda p, ids: models.ByteLM(config).apply(p, input_ids=ids))
  np.testing.assert_allclose(
    tiny.dense_apply(dense_params, tiny.ids),
    single(params, tiny.ids),
    atol=1e-5,
  )


def test_layers_may_have_weights_of_their_own(tiny):
  weights = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
  _, merged = _merge(tiny, weights)
  for layer in range(2):
    name = f"layer_{layer}"
    stack = np.array(tiny.params["params"][name]["experts"]["stack"].w_in)
    np.testing.assert_allclose(
      merged["params"][name]["experts"]["stack"].w_in,
      sum(w * s for w, s in zip(weights[layer], stack, strict=True)),
      atol=1e-6,
    )


def test_merged_parameters_hold_no_expert_axis_and_no_router(tiny):
  dense, dense_params = _merge(tiny, [0.2, 0.3, 0.5])
  assert dense == tiny.dense
  fresh = tiny.dense_init(jax.random.key(2))
  assert jax.tree.structure(fresh) == jax.tree.structure(dense_params)
  assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, dense_params)
  assert "router" not in str(jax.tree.structure(dense_params))
  # Two layers of two 8 x 16 float32 matrices; three experts.
  assert models.expert_bytes(dense_params) == 2 * 2 * 8 * 16 * 4
  assert models.expert_bytes(tiny.params) == 3 * 2 * 2 * 8 * 16 * 4


def test_gradient_in_the_weights_is_the_slope(tiny):
  windows = jnp.concatenate([tiny.ids, tiny.ids[:, :1]], axis=1)

  def loss(weights):
    dense, dense_params = models.merge(tiny.model, tiny.params, weights)
    return jnp.mean(models.score(dense, dense_params, windows).loss)

  run = jax.jit(jax.value_and_grad(loss))
  weights, direction = np.array([[0.2, 0.3, 0.5], [1.0, -0.5, -0.5]], "f4")
  above, _ = run(weights + 0.01 * direction)
  below, _ = run(weights - 0.01 * direction)
  _, grad = run(weights)
  # A central difference of float32 values near 5 (spacing 5e-7) over .02.
  assert float(grad @ direction) == pytest.approx(
    float(above - below) / 0.02, abs=2e-3
  )


def test_upcycling_without_noise_is_undone_by_any_merge(tiny):
  dense_params = tiny.dense_init(jax.random.key(5))
  upcycle = jax.jit(
    lambda p, noise: models.upcycle(
      jax.random.key(6), tiny.model, p, noise=noise
    )
  )
  params = upcycle(dense_params, 0.0)
  _, merged = models.merge(tiny.model, params, jnp.array([0.1, 0.7, 0.2]))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    merged,
    dense_params,
  )
  noisy = upcycle(dense_params, 0.5)
  stack = np.array(noisy["params"]["layer_0"]["experts"]["stack"].w_in)
  plain = np.array(dense_params["params"]["layer_0"]["experts"]["stack"].w_in)
  # 384 draws: the ratio is within 15 % with room to spare.
  ratio = np.std(stack - plain[None]) / np.std(plain)
  assert ratio == pytest.approx(0.5, rel=0.15)


def test_a_decoder_is_upcycled_with_its_gates_and_its_shared_block():
  model = models.Decoder(models.preset("tiny"))
  dense = models.dense_form(model)

  @jax.jit
  def make():
    dense_params = dense.init(jax.random.key(3))
    return dense_params, models.upcycle(jax.random.key(4), model, dense_params)

  dense_params, params = make()
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(
    jnp.shape, jax.eval_shape(model.init, jax.random.key(0))
  )
  # Whatever its router says, a model of equal experts is the dense one.
  ids = jnp.arange(12).reshape(2, 6)
  np.testing.assert_allclose(
    jax.jit(model.apply)(params, ids),
    jax.jit(dense.apply)(dense_params, ids),
    atol=2e-5,
  )


def test_refuses_wrong_weights_and_dense_models(tiny):
  with pytest.raises(ValueError, match=r"\(4,\) for E=3, L=2"):
    _merge(tiny, [0.25] * 4)
  with pytest.raises(ValueError, match=r"\(3, 3\) for E=3, L=2"):
    _merge(tiny, [[0.2, 0.3, 0.5]] * 3)
  with pytest.raises(ValueError, match=r"int32\(3,\) for E=3"):
    _merge(tiny, [1, 0, 0])
  with pytest.raises(ValueError, match=r"an array, got list \[0.2, 0.3, 0.5\]"):
    models.merge(tiny.model, tiny.params, [0.2, 0.3, 0.5])
  with pytest.raises(ValueError, match="noise=nan"):
    models.upcycle(
      jax.random.key(0), tiny.model, tiny.params, noise=float("nan")
    )
  with pytest.raises(ValueError, match="num_experts=None"):
    models.merge(tiny.dense, tiny.params, jnp.ones(3))


def copied_model(**router):
  """A decoder of three layers; the first two hold copies of one FFN."""
  router = models.RouterOptions(**router)
  model = models.Decoder(
    models.preset("tiny", num_layers=3, shared_dim=None, router=router)
  )
  params = jax.jit(model.init)(jax.random.key(7))
  for layer in ("layer_0", "layer_1"):
    experts = params["params"][layer]["experts"]
    experts["stack"] = jax.tree.map(
      lambda x: jnp.broadcast_to(x[1:2], x.shape), experts["stack"]
    )
  return model, params


def test_copies_become_one_ffn_that_computes_the_same():
  model, params = copied_model()
  found, own = models.merge_copies(model, params)
  assert found.config.dense_layers == (0, 1)
  assert found.config.moe_layers == (2,)
  fresh = jax.eval_shape(found.init, jax.random.key(0))
  assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, own)
  ids = jnp.array([[1, 5, 9, 13], [60, 2, 2, 7]])

  def run(model, params):
    def loss(x):
      return jnp.mean(jnp.square(model_apply(*models.merge(model, params, x))))

    def model_apply(dense, merged):
      return dense.apply(merged, ids)

    x = jnp.array([0.1, 0.2, 0.3, 0.4])
    slope = jax.grad(loss)(x)
    # Copies add the same to each direction, which the simplex has none of.
    return model.apply(params, ids), loss(x), slope - jnp.mean(slope)

  # Sums of K or E gates that are one but for float32 rounding.
  for one, other in zip(
    jax.jit(lambda p: run(found, p))(own),
    jax.jit(lambda p: run(model, p))(params),
    strict=True,
  ):
    np.testing.assert_allclose(one, other, atol=3e-5)


def test_what_is_no_mean_of_copies_stays_as_it_is():
  model, params = copied_model(renormalise=False)
  assert models.merge_copies(model, params) == (model, params)
  model, params = copied_model()
  stack = params["params"]["layer_0"]["experts"]["stack"]
  changed = dataclasses.replace(stack, w_in=stack.w_in.at[0, 0, 0].add(1.0))
  params["params"]["layer_0"]["experts"]["stack"] = changed
  found = models.merge_copies(model, params)
  assert found[0] is model and found[1] is params


def test_copies_that_do_not_take_all_tokens_stay_as_they_are():
  """Some of the router's outputs lead to no expert, as after pruning."""
  model, params = copied_model()
  for index in model.config.moe_layers:
    experts = params["params"][f"layer_{index}"]["experts"]
    experts["stack"] = jax.tree.map(lambda x: x[:3], experts["stack"])
    experts["routes"] = moe.Routes((0, 1, 2, moe.NO_EXPERT))
  found = models.merge_copies(model, params)
  assert found[0] is model and found[1] is params


def test_a_dense_model_has_no_copies():
  model, params = copied_model()
  dense, merged = models.merge(model, params, jnp.full(4, 0.25))
  merged = jax.tree.map(jnp.zeros_like, merged)
  assert models.merge_copies(dense, merged)[0] is dense
