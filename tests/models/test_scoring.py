import jax
import numpy as np

from tanbr_jax import models


def test_score_of_known_logits():
  probabilities = np.full((1, 2, 256), 0.5 / 255)
  probabilities[0, 0, 7] = 0.5
  probabilities[0, 1, 9] = 0.5
  score = jax.jit(models.score_logits)(
    np.log(probabilities).astype(np.float32), np.array([[7, 8]], np.int32)
  )
  np.testing.assert_allclose(score.accuracy, [0.5])
  expected = -(np.log(0.5) + np.log(0.5 / 255)) / 2
  np.testing.assert_allclose(score.loss, [expected], rtol=1e-5)


def test_windows_are_scored_one_byte_ahead(tiny):
  windows = np.concatenate([tiny.ids, tiny.ids[:, :1]], axis=1)
  score = jax.jit(lambda p, w: models.score(tiny.model, p, w))(
    tiny.params, windows.astype(np.uint8)
  )
  logits = np.float64(tiny.apply(tiny.params, tiny.ids))
  for b in range(2):
    log_p = logits[b] - np.log(np.exp(logits[b]).sum(-1, keepdims=True))
    losses = [-log_p[s, windows[b, s + 1]] for s in range(10)]
    np.testing.assert_allclose(score.loss[b], np.mean(losses), rtol=1e-5)


def test_task_usage_is_the_mean_probability_of_the_tasks_own_text(tiny):
  windows = jax.random.randint(jax.random.key(0), (3, 2, 11), 0, 256)
  run = jax.jit(
    lambda p, w: (
      models.task_usage(tiny.model, p, w),
      models.route(tiny.model, p, w[1, :, :-1])[1],
    )
  )
  usage, router_logits = run(tiny.params, windows)
  np.testing.assert_allclose(usage.sum(-1), 1.0, rtol=1e-5)
  expected = jax.nn.softmax(router_logits).mean((0, 1))
  np.testing.assert_allclose(usage[1], expected, rtol=1e-4)
