import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import models
from tanbr_jax.models import scoring


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


def test_marked_tokens_are_read_and_not_scored(tiny):
  tokens = np.array(jnp.concatenate([tiny.ids, tiny.ids[:, :1]], axis=1))
  windows = tokens.copy()
  windows[0, :4] = ~windows[0, :4]  # a prompt
  windows[1, 8:] = ~windows[1, 8:]  # padding
  score = jax.jit(lambda p, w: models.score(tiny.model, p, w))(
    tiny.params, windows
  )
  logits = np.float64(tiny.apply(tiny.params, tiny.ids))
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  for b, places in enumerate((range(3, 10), range(7))):
    losses = [-log_p[b, s, tokens[b, s + 1]] for s in places]
    np.testing.assert_allclose(score.loss[b], np.mean(losses), rtol=1e-5)


def test_parts_of_a_batch_are_the_batch(monkeypatch):
  # Room for 4 windows of 10 x 256 logits: 6 go by threes.
  monkeypatch.setattr(scoring, "MOST_LOGITS", 4 * 2560)
  windows = np.arange(66, dtype=np.float32).reshape(6, 11) / 66
  shapes = set()

  def total(x):
    def of_window(part):
      shapes.add(part.shape)
      return {"sum": jnp.sum(jnp.sin(x * part), axis=1), "part": part}

    found = models.over_windows(of_window, jnp.asarray(windows), vocab_size=256)
    return jnp.sum(found["sum"]), found

  (value, found), slope = jax.value_and_grad(total, has_aux=True)(2.0)
  assert shapes == {(3, 11)}
  # Sums of 66 numbers below 1.
  np.testing.assert_allclose(value, np.sin(2 * windows).sum(), rtol=1e-5)
  np.testing.assert_allclose(
    slope, (windows * np.cos(2 * windows)).sum(), rtol=1e-4
  )
  np.testing.assert_array_equal(found["part"], windows)


def test_task_usage_is_the_mean_probability_of_the_tasks_own_text(tiny):
  windows = jax.random.randint(jax.random.key(0), (3, 2, 11), 0, 256)
  usage = jax.jit(lambda p, w: models.task_usage(tiny.model, p, w))(
    tiny.params, windows
  )
  seen = jax.jit(
    lambda p, ids: tiny.model.apply(
      p, ids, observe=Partial(lambda layer, output: layer.router_logits)
    )[1]
  )
  for task in range(3):
    logits = np.float64(seen(tiny.params, windows[task, :, :-1]))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(usage[task], shares.mean((0, 1)), rtol=1e-4)
