import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_pretraining

from tanbr_jax import compress, models, moe
from tanbr_jax.training import recovery

pytestmark = pytest.mark.slow

MODEL = tiny_pretraining.CONFIG.make_model()
LABELS = np.array([0, 1, 0])


@functools.cache
def windows():
  return np.asarray(tiny_pretraining.windows("train", 6)).reshape(-1, 9)


@functools.cache
def grouped():
  params = jax.jit(MODEL.init)(jax.random.key(0))
  stack = params["params"]["layer_0"]["experts"]["stack"]
  return compress.merging.assembly.grouped(
    MODEL, params, [moe.take_experts(stack, [0, 1])], [LABELS]
  )


def names_of_changed(before, after):
  before, after = (
    jax.tree_util.tree_leaves_with_path(x) for x in (before, after)
  )
  return {
    jax.tree_util.keystr(path)
    for (path, a), (_, b) in zip(before, after, strict=True)
    if not np.array_equal(a, b)
  }


def recover(part, **given):
  settings = {"num_steps": 20, "batch_size": 4, "learning_rate": 1e-2}
  model, params = grouped()
  return recovery.recover(
    model, params, windows(), part=part, **settings | given
  )


def test_routers_alone_are_trained():
  model, params = grouped()
  found = recover("router")
  assert names_of_changed(params, found) == {
    "['params']['layer_0']['experts']['router']['kernel']"
  }
  routes = found["params"]["layer_0"]["experts"]["routes"]
  assert routes == moe.Routes((0, 1, 0))
  loss = jax.jit(lambda p: models.score(model, p, windows()).loss.mean())
  assert loss(found) < loss(params)


def test_all_is_what_adam_written_out_gives():
  model, params = grouped()
  found = recover("all", num_steps=3, seed=5)
  layer = params["params"]["layer_0"]
  experts = dict(layer["experts"])
  routes = {"routes": experts.pop("routes")}

  def whole(rest):
    experts = {**rest["layer_0"]["experts"], **routes}
    return {
      "params": {**rest, "layer_0": {**rest["layer_0"], "experts": experts}}
    }

  @jax.jit
  def step(rest, moments, rows, count):
    gradients = jax.grad(
      lambda rest: jnp.mean(models.score(model, whole(rest), rows).loss)
    )(rest)
    norm = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(gradients)))
    rate = 1e-2 * (0.55 + 0.45 * jnp.cos(jnp.pi * (count - 1) / 3))

    def one(x, first, second, slope):
      slope = slope / jnp.maximum(1.0, norm)
      first = 0.9 * first + 0.1 * slope
      second = 0.98 * second + 0.02 * slope**2
      spread = jnp.sqrt(second / (1 - 0.98**count)) + 1e-8
      x = x - rate * first / (1 - 0.9**count) / spread
      return x, first, second

    found = jax.tree.map(one, rest, *moments, gradients)
    parts = jax.tree.transpose(
      jax.tree.structure(rest), jax.tree.structure((0, 0, 0)), found
    )
    return parts[0], parts[1:]

  rest = {**params["params"], "layer_0": {**layer, "experts": experts}}
  moments = (jax.tree.map(jnp.zeros_like, rest),) * 2
  for number in range(3):
    key = jax.random.fold_in(jax.random.key(5), number)
    rows = jax.random.randint(key, (4,), 0, len(windows()), jnp.int32)
    rows = jnp.asarray(windows())[rows]
    rest, moments = step(rest, moments, rows, jnp.float32(number + 1))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, whole(rest)
  )


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"part": "experts"}, "got part='experts'"),
    ({"num_steps": 0}, "num_steps must be at least 1, got num_steps=0"),
    ({"learning_rate": 0.0}, "learning_rate"),
  ],
)
def test_what_cannot_be_is_refused(given, message):
  with pytest.raises(ValueError, match=message):
    recover(**{"part": "all"} | given)


def test_a_dense_model_has_no_router():
  dense = models.dense_form(MODEL)
  params = {"params": {"layer_0": {"experts": {"stack": None}}}}
  with pytest.raises(ValueError, match="no routers"):
    recovery.recover(dense, params, windows(), part="router", num_steps=1)
  with pytest.raises(ValueError, match=r"windows must be .* got \(0, 9\)"):
    recovery.recover(dense, params, windows()[:0], part="all", num_steps=1)
