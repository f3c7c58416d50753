import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_pretraining

from tanbr_jax import models
from tanbr_jax.training import mergeability

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
  return tiny_pretraining.CONFIG.make_model()


@pytest.fixture(scope="module")
def params(model):
  return jax.jit(model.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def found(model, params):
  return mergeability.score_choices(
    model,
    params,
    choose_on=tiny_pretraining.windows("validation"),
    score_on=tiny_pretraining.windows("validation"),
    task_weights=jnp.eye(3),
    steps=25,
  )


def _losses(model, params, x, windows):
  """[V] losses of the merged model, a task at a time."""
  dense, merged = models.merge(model, params, x)
  score = jax.jit(lambda p, w: models.score(dense, p, w))
  return np.array([score(merged, task).loss.mean() for task in windows])


def test_mixes_are_single_tasks_then_neighbours():
  np.testing.assert_allclose(
    mergeability.concentrated_mixes(3),
    [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [0.75, 0.25, 0],
      [0, 0.75, 0.25],
      [0.25, 0, 0.75],
    ],
  )


def test_scores_are_those_of_the_weights_that_it_names(model, params, found):
  windows = tiny_pretraining.windows("validation")
  mixes = np.array(found.mixes)
  static = mixes @ _losses(model, params, found.static_weights, windows)
  np.testing.assert_allclose(found.static.loss, static, rtol=1e-5)
  uniform = mixes @ _losses(model, params, jnp.full(3, 1 / 3), windows)
  np.testing.assert_allclose(found.uniform.loss, uniform, rtol=1e-5)
  pair = mixes[4] @ _losses(model, params, found.best_weights[4], windows)
  np.testing.assert_allclose(found.best.loss[4], pair, rtol=1e-5)
  table = _losses(model, params, jnp.eye(3)[1], windows)[1]
  np.testing.assert_allclose(found.table.loss[1], table, rtol=1e-5)


def test_routed_is_the_routed_model(model, params, found):
  score = jax.jit(lambda p, w: models.score(model, p, w))
  windows = tiny_pretraining.windows("validation")
  losses = [float(score(params, task).loss.mean()) for task in windows]
  np.testing.assert_allclose(
    found.routed.loss, np.array(found.mixes) @ losses, rtol=1e-5
  )


def test_best_is_no_worse_on_the_text_that_it_was_chosen_on(found):
  # The search starts at the static weights, so it can only improve on them
  # (up to their being moved inside the simplex by 1e-3).
  assert np.all(found.best.loss <= found.static.loss + 1e-3)
  assert np.all(found.static.loss.mean() <= found.uniform.loss.mean() + 1e-3)


def test_summary_is_flat_and_its_gap_is_the_difference(found):
  summary = mergeability.summarise(found)
  assert summary["gap/task_loss"] == pytest.approx(
    float(np.mean(found.best.loss[:3] - found.static.loss[:3])), abs=1e-6
  )
  assert summary["routed_lead/mix_accuracy"] == pytest.approx(
    float(np.mean(found.routed.accuracy - found.best.accuracy)), abs=1e-6
  )
