"""Rewards of requests against loops over their tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import plain_byte_lm
import pytest

from tanbr_jax import data
from tanbr_jax.environments import mixes, moe_slots, rewards
from tanbr_jax.environments.oracle.table import OracleTable

B, V = 8, 3
MIX = jnp.array([0.5, 0.3, 0.2])
KEY = jax.random.key(3)
X = np.array([0.2, 0.5, 0.3])
SPACE, LINE_END = 32, 10


@pytest.fixture(scope="module")
def answers():
  """Tokens [N, 12], logits [N, 11, 128] and the predictions they make."""
  rng = np.random.default_rng(0)
  letters = [SPACE, LINE_END, 97, 98, 99]
  tokens = rng.choice(letters, (200, 12), p=[0.2, 0.05, 0.25, 0.25, 0.25])
  is_right = rng.random((200, 11)) < 0.7
  predictions = np.where(is_right, tokens[:, 1:], rng.choice(letters, (200, 1)))
  logits = np.eye(128, dtype=np.float32)[predictions]
  return tokens, jnp.asarray(logits), predictions


def words_right(tokens, predictions, is_scored):
  """Whole words of one window: for each, whether all of it is right."""
  found, word = [], [] if tokens[0] in rewards.SEPARATORS else None
  for token, guess, scored in zip(
    tokens[1:], predictions, is_scored, strict=True
  ):
    if token in rewards.SEPARATORS or not scored:
      found += [all(word)] if word else []
      word = []
    elif word is not None:
      word.append(token == guess)
  return found


@pytest.mark.parametrize("is_marked", [False, True])
def test_whole_words_by_a_loop(answers, is_marked):
  tokens, logits, predictions = answers
  is_scored, windows = np.ones(predictions.shape, bool), np.uint8(tokens)
  if is_marked:
    is_scored = np.random.default_rng(1).random(predictions.shape) < 0.8
    windows = np.int32(tokens)
    windows[:, 1:][~is_scored] = ~windows[:, 1:][~is_scored]
  read = data.read_windows(jnp.asarray(windows))
  found = jax.jit(rewards.as_reward("whole_words"))(logits, read)
  words = list(map(words_right, tokens, predictions, is_scored))
  expected = [np.mean(of) if of else 0.0 for of in words]
  # Shares of at most five words, divided in float32.
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert any(not of for of in words) and 0.2 < np.mean(expected) < 0.8


def test_form_counts_predictions_right_or_wrong(answers):
  tokens, logits, predictions = answers
  read = data.read_windows(jnp.asarray(np.uint8(tokens)))
  found = rewards.as_reward("plain_letters")(logits, read)
  is_plain = np.vectorize(lambda code: chr(code).isalpha() or code == SPACE)
  np.testing.assert_allclose(found, is_plain(predictions).mean(1), atol=1e-6)
  assert np.ptp(found) > 0.1


def test_a_judge_agrees_with_what_it_would_have_predicted(tiny):
  windows = np.random.default_rng(2).integers(0, 256, (4, 7)).astype(np.uint8)
  read = data.read_windows(jnp.asarray(windows))
  judge = jax.jit(tiny.model.apply)(tiny.params, read.inputs)
  choices = np.array(jnp.argmax(judge, axis=-1))
  choices[np.arange(4), np.arange(4)] += 1  # one of six, but for the last
  choices[3] = np.argmin(judge[3], axis=-1)
  logits = jnp.eye(256, dtype=jnp.float32)[jnp.asarray(choices) % 256]
  found = jax.jit(rewards.judged_by(tiny.model, tiny.params))(logits, read)
  np.testing.assert_allclose(found, [5 / 6] * 3 + [0.0], atol=1e-6)


def margin(logits, read):
  """A user's: how far the likeliest token is ahead of the right one."""
  chosen = jnp.take_along_axis(logits, read.targets[..., None], axis=-1)
  return jnp.mean(chosen[..., 0] - jnp.max(logits, axis=-1), axis=-1)


def make(tiny, **options):
  return moe_slots.moe_slots(
    tiny.model,
    tiny.params,
    tiny.text,
    task_mix=mixes.fixed(MIX),
    optimal_table=OracleTable(jnp.eye(V), jnp.eye(V)),
    requests_per_slot=B,
    **options,
  )


def test_a_slot_with_a_users_reward_and_tasks_of_other_values(tiny):
  values = np.array([0.5, 0.0, 4.0])
  environment = make(tiny, reward=margin, task_values=values)
  state = environment.init(KEY)
  feedback, outcome, _ = jax.jit(environment.step)(KEY, state, jnp.float32(X))
  tasks, windows = moe_slots.draw_requests(
    jax.random.split(KEY)[0], tiny.text, MIX, requests=B, context=6
  )
  tasks, windows = np.asarray(tasks), np.int64(windows)
  params = jax.tree.map(np.float64, tiny.params["params"])

  def earned(weights):
    logits = plain_byte_lm.merged(
      params, weights, windows[:, :-1], num_heads=2
    )[0]
    chosen = np.take_along_axis(logits, windows[:, 1:, None], -1)[..., 0]
    return values[tasks] * (chosen - logits.max(-1)).mean(-1)

  found = earned(X)
  assert set(tasks) == {0, 1, 2}
  by_task = [found[tasks == task].mean() for task in range(V)]
  # Logits near 10 of a forward with six float32 products in a row, times 4.
  close = {"rtol": 1e-4, "atol": 1e-3}
  np.testing.assert_allclose(feedback.task_reward, by_task, **close)
  np.testing.assert_allclose(outcome.expected_reward, found.mean(), **close)
  # Valued, the last task is worth .8 of the first's .25: the table's choice.
  np.testing.assert_array_equal(outcome.optimal_weights, np.eye(V)[2])
  best = earned(np.eye(V)[2]).mean()
  np.testing.assert_allclose(outcome.optimal_reward, best, **close)


def by_token(logits, read):
  del read
  return jnp.max(logits, axis=-1)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"reward": "loss"}, r"one of \('accuracy', .*\), got reward='loss'"),
    (
      {"reward": by_token},
      r"to \[B\] floats, got .*8, 6.* for B=8, S=6, V=256",
    ),
    ({"task_values": [1.0, 2.0]}, r"got shape \[2\] for 3 tasks"),
    ({"task_values": [1.0, -2.0, 0.0]}, r"got task_values=\[1.0, -2.0, 0.0\]"),
  ],
)
def test_bad_arguments_are_one_line_errors(tiny, options, message):
  with pytest.raises(ValueError, match=message) as error:
    make(tiny, **options)
  assert "\n" not in str(error.value)
