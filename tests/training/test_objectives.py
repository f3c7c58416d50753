import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_pretraining
from jax.tree_util import Partial

from tanbr_jax import data, models
from tanbr_jax.training import objectives


@pytest.fixture(scope="module")
def model():
  return tiny_pretraining.CONFIG.make_model()


@pytest.fixture(scope="module")
def params(model):
  return {
    "model": jax.jit(model.init)(jax.random.key(0)),
    "table": jnp.array(np.random.default_rng(0).normal(size=(3, 3)), "f4"),
  }


def _settings(*, mixes=None, **kwargs):
  values = dict(weight_noise=0.0, load_balance=0.0, z_loss=0.0) | kwargs
  settings = {name: jnp.float32(value) for name, value in values.items()}
  return settings | {"mixes": jnp.eye(3) if mixes is None else mixes}


def test_anchors_are_far_apart():
  anchors = objectives.far_anchors(
    0, num_tasks=6, num_experts=6, concentration=0.5
  )
  np.testing.assert_allclose(anchors.sum(1), 1.0, rtol=1e-6)
  distances = np.linalg.norm(anchors[:, None] - anchors[None], axis=-1)
  distances += 9 * np.eye(6)
  random = np.random.default_rng(1).dirichlet(np.full(6, 0.5), 6)
  plain = np.linalg.norm(random[:, None] - random[None], axis=-1)
  assert distances.min() > 1.5 * (plain + 9 * np.eye(6)).min()


def test_mixes_are_on_the_simplex_and_as_often_alone_as_asked():
  mixes = objectives.draw_mixes(
    0, num_tasks=4, concentration=0.3, one_hot_fraction=0.25
  )
  np.testing.assert_allclose(mixes.sum(1), 1.0, rtol=1e-5)
  # 4,096 draws: three standard errors of a share of .25 are .02; a
  # Dirichlet(.3) rounds to a vertex in a few of a thousand draws.
  assert (mixes.max(1) == 1.0).mean() == pytest.approx(0.25, abs=0.03)
  np.testing.assert_allclose(mixes.mean(0), 0.25, atol=0.03)


def test_merged_loss_is_the_mean_over_mixes_of_merged_models(model, params):
  # Each task's text is one cyclic window up to its start, and one-hot mixes:
  # the loss must be one that merged models of single rows can have.
  text = data.from_arrays([np.full(9, byte, np.uint8) for byte in b"xyz"])
  run = jax.jit(
    lambda params, key: objectives.merged_loss(
      text,
      _settings(),
      params,
      key,
      model=model,
      context=8,
      batch_size=2,
      num_mixes=1,
      is_learnt=True,
    )
  )
  table = jax.nn.softmax(params["table"])
  possible = []
  for task in range(3):
    dense, merged = models.merge(model, params["model"], table[task])
    score = jax.jit(lambda p, w, m=dense: models.score(m, p, w))
    possible.append(float(score(merged, text.tokens[task][None]).loss[0]))
  for seed in range(4):
    loss = float(run(params, jax.random.key(seed)))
    assert np.abs(np.array(possible) - loss).min() < 1e-5


@pytest.mark.parametrize("is_learnt", [True, False])
def test_only_a_learnt_table_has_a_gradient(model, params, is_learnt):
  text = data.from_arrays(tiny_pretraining.corpus().splits["train"])
  grad = jax.jit(
    jax.grad(
      lambda params: objectives.merged_loss(
        text,
        _settings(mixes=jnp.full((1, 3), 1 / 3), weight_noise=0.1),
        params,
        jax.random.key(0),
        model=model,
        context=8,
        batch_size=4,
        num_mixes=2,
        is_learnt=is_learnt,
      )
    )
  )(params)
  assert bool(jnp.any(grad["table"] != 0)) == is_learnt
  assert jnp.any(grad["model"]["params"]["layer_0"]["experts"]["stack"].w_in)


def test_routed_loss_adds_the_routers_losses(model, params):
  text = data.from_arrays(tiny_pretraining.corpus().splits["train"])
  run = jax.jit(
    lambda settings: objectives.routed_loss(
      text,
      settings,
      params,
      jax.random.key(0),
      model=model,
      context=8,
      batch_size=4,
    )
  )
  plain = run(_settings())
  # The balance loss is at least about one, the z loss positive.
  assert float(run(_settings(load_balance=1.0)) - plain) > 0.5
  assert float(run(_settings(z_loss=1.0)) - plain) > 0.1


def test_distinct_mixes_are_all_the_tasks_in_any_order(model, params):
  # Constant texts: what a step reads of a task does not depend on its draws.
  text = data.from_arrays([np.full(9, byte, np.uint8) for byte in b"xyz"])
  run = jax.jit(
    lambda key: objectives.merged_loss(
      text,
      _settings(),
      params,
      key,
      model=model,
      context=8,
      batch_size=3,
      num_mixes=3,
      is_learnt=True,
      distinct=True,
    )
  )
  table = jax.nn.softmax(params["table"])
  own = []
  for task in range(3):
    dense, merged = models.merge(model, params["model"], table[task])
    own.append(
      jnp.mean(models.score(dense, merged, text.tokens[task][None]).loss)
    )
  for seed in range(3):
    assert float(run(jax.random.key(seed))) == pytest.approx(
      float(np.mean(own)), rel=1e-5
    )


def test_task_loss_is_the_routers_cross_entropy_with_the_task(model, params):
  text = data.from_arrays([np.full(9, byte, np.uint8) for byte in b"xyz"])
  key, sizes = jax.random.key(1), {"context": 8, "batch_size": 4}

  def loss(weight, has_task_experts):
    settings = _settings(task_loss=weight)
    return jax.jit(
      lambda settings: objectives.routed_loss(
        text,
        settings,
        params,
        key,
        model=model,
        has_task_experts=has_task_experts,
        **sizes,
      )
    )(settings)

  # The windows of that key, and each layer's logits seen on them.
  windows = np.asarray(objectives.uniform_windows(key, text, 4, 8))
  tasks = [list(b"xyz").index(int(row[0])) for row in windows]
  _, logits = model.apply(
    params["model"],
    jnp.asarray(windows[:, :-1], jnp.int32),
    observe=Partial(lambda tree, own, made: own.router_logits, ()),
  )
  logits = np.float64(logits).reshape(-1, 4, 8, 3)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = -np.mean([log_p[:, b, :, v] for b, v in enumerate(tasks)])
  found = loss(2.0, True) - loss(0.0, False)
  assert float(found) == pytest.approx(2 * expected, rel=1e-4)
