import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_pretraining

from tanbr_jax import data, masking
from tanbr_jax.training import sparse_tuning
from tanbr_jax.training.sparse_tuning import TuningConfig

pytestmark = pytest.mark.slow

# Two layers, three of five experts; windows of eight bytes.
MODEL = dataclasses.replace(
  tiny_pretraining.CONFIG, num_layers=2, num_experts=5, num_selected=3
).make_model()
TEXT = data.from_arrays(tiny_pretraining.corpus().splits["train"])
CONFIG = TuningConfig(
  num_steps=40,
  batch_size=4,
  accumulate=2,
  learning_rate=1e-3,
  added_learning_rate=2e-2,
  budget=1.0,
  budget_rate=0.2,
)


@functools.cache
def params():
  return MODEL.init(jax.random.key(0))


@jax.jit
def see(params, ids, reroute, observe):
  return MODEL.apply(params, ids, reroute=reroute, observe=observe)


def tune(config, path=None):
  return sparse_tuning.tune(
    config,
    MODEL,
    params(),
    TEXT,
    context=8,
    checkpoint_dir=path,
    checkpoint_every=10,
    progress=False,
  )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tuned")
  return folder, tune(CONFIG, folder)


def test_the_budget_is_held(tuned):
  _, found = tuned
  windows = tiny_pretraining.windows("test", 8).reshape(-1, 9)
  ids = windows[:, :-1].astype(jnp.int32)
  observe = masking.observe_activity()
  _, seen = see(found.params, ids, found.reroute, observe)
  # From three experts a token; twenty steps of a falling rate end near one.
  assert float(seen.mean_active.mean()) == pytest.approx(1.0, abs=0.35)
  assert found.beta != CONFIG.beta
  # Everything was trained.
  moved = jax.tree.map(
    lambda one, other: float(jnp.abs(one - other).max()),
    found.params,
    params(),
  )
  assert min(jax.tree.leaves(moved)) > 0


def test_a_training_that_is_resumed_ends_with_the_same_bits(tuned, tmp_path):
  folder, whole = tuned
  shutil.copytree(folder, tmp_path / "again")
  # Without the last state it goes on from the 30th step's, an odd one of two.
  (last,) = tmp_path.glob("again/everything/40")
  shutil.rmtree(last)
  last.with_suffix(".json").unlink()
  resumed = tune(CONFIG, tmp_path / "again")
  assert last.exists()
  for one, other in zip(
    jax.tree.leaves((whole.params, whole.added, whole.beta)),
    jax.tree.leaves((resumed.params, resumed.added, resumed.beta)),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)


def test_the_loss_is_the_sum_of_its_parts():
  """The same batch through the model, and the parts added in NumPy."""
  key, beta, alpha = jax.random.key(5), 0.5, 0.25
  kernel = jax.random.normal(jax.random.key(1), (2, 16, 5))
  mask_router = {"kernel": kernel}
  settings = {
    "alpha": jnp.float32(alpha),
    "temperature": jnp.float32(1),
    "budget": jnp.float32(1.2),
    "has_budget": jnp.float32(1),
    "budget_rate": jnp.float32(0.3),
    "budget_gain": jnp.float32(2.0),
  }

  def loss(beta_):
    return sparse_tuning.tuning_loss(
      TEXT,
      settings,
      {"model": params(), "teacher": None},
      {"added": mask_router, "beta": beta_},
      key,
      config=dataclasses.replace(CONFIG, budget=None),
      model=MODEL,
      context=8,
    )

  beta_ = jnp.float32(beta)
  grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (total, figures), slope = grad(beta_)
  # The same windows, without any of the module's code.
  task_key, window_key = jax.random.split(key)
  tasks = jax.random.randint(task_key, (4,), 0, 3, jnp.int32)
  windows = data.sample_task_windows(window_key, TEXT, tasks, 9)
  ids = np.asarray(windows, np.int32)
  logits, seen = see(
    params(),
    ids[:, :-1],
    masking.beam_in_training(mask_router),
    jax.tree_util.Partial(masking.observe_masks, mask_router),
  )
  logits = np.float64(logits)
  chosen = np.take_along_axis(logits, ids[:, 1:, None], axis=-1)[..., 0]
  nats = np.log(np.exp(logits).sum(-1)) - chosen
  mean, balance, active = (
    np.float64(x).mean()
    for x in (seen.mean, seen.load_balance, seen.num_active)
  )
  excess = (active - 1.2) / 3
  expected = nats.mean() + alpha * balance
  expected += (beta + 2.0 * excess) * mean
  assert float(total) == pytest.approx(expected, rel=1e-5)
  # Steps against this slope raise beta where too many are active.
  assert float(slope) == pytest.approx(-0.3 * excess, rel=1e-4)
  assert float(figures["active"]) == pytest.approx(active, rel=1e-5)
  assert abs(excess) > 0.01


def test_refuses_before_any_work():
  for fields, message in (
    ({"beta": -0.1}, "beta must be at least 0, got beta=-0.1"),
    ({"budget": 0.0}, "budget must be positive, got budget=0.0"),
    ({"budget": 3.5}, "budget must be at most 3 of this model, got budget=3.5"),
    ({"method": "beem"}, "got method='beem'"),
    ({"method": "none"}, "needs method='beam', got method='none', budget=1.0"),
    (
      {"method": "none", "budget": None, "trains": "added"},
      "method='none' adds nothing to train",
    ),
    ({"num_selected": 4}, "num_selected must be at most 3"),
  ):
    with pytest.raises(ValueError, match=message) as error:
      tune(dataclasses.replace(CONFIG, **fields))
    assert "\n" not in str(error.value)
