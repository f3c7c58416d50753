"""Gradients and usage of a served slot against a model in float64 NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import plain_byte_lm
import pytest
from jax.tree_util import Partial

from tanbr_jax import data
from tanbr_jax.environments import mixes, moe_slots, slot_signals
from tanbr_jax.environments.oracle.table import OracleTable
from tanbr_jax.models import scoring

E, V, B = 3, 3, 8
MIX = jnp.array([0.6, 0.4, 0.0])
KEY = jax.random.key(3)
X = np.array([0.2, 0.5, 0.3])

step = jax.jit(lambda env, *args: env.step(*args))


def make(tiny, params=None, requests=B, **options):
  table = OracleTable(jnp.eye(E), jnp.eye(V))
  return moe_slots.moe_slots(
    tiny.model,
    tiny.params if params is None else params,
    tiny.text,
    task_mix=mixes.fixed(MIX),
    optimal_table=table,
    requests_per_slot=requests,
    paired=False,
    **options,
  )


def play(environment, weights=X):
  state = environment.init(KEY)
  return step(environment, KEY, state, jnp.float32(weights))[0]


@pytest.fixture(scope="module")
def windows(tiny):
  request_key = jax.random.split(KEY)[0]
  drawn = moe_slots.draw_requests(
    request_key, tiny.text, MIX, requests=B, context=6
  )
  return np.int64(drawn[1])


@pytest.fixture(scope="module")
def plain(tiny):
  """Weights, windows -> logits [n, S, 256] and the layer's input, float64."""
  params = jax.tree.map(np.float64, tiny.params["params"])
  return lambda x, windows: plain_byte_lm.merged(
    params, x, windows[:, :-1], num_heads=2
  )


def slope(objective):
  """Central differences in float64, along each weight, without their mean.

  With steps of 1e-5 truncation is 1e-10 and rounding 1e-16 / 1e-5.
  """
  ends = [objective(X + d) - objective(X - d) for d in 1e-5 * np.eye(len(X))]
  found = np.array(ends) / 2e-5
  return found - found.mean()


def log_softmax(logits):
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def log_likelihood(logits, windows):
  found = np.take_along_axis(log_softmax(logits), windows[:, 1:, None], -1)
  return found.mean()


def minus_entropy(logits):
  return (np.exp(log_softmax(logits)) * log_softmax(logits)).sum(-1).mean()


# Gradients near 1 of a forward with six float32 products in a row.
CLOSE = {"rtol": 1e-3, "atol": 2e-4}


def test_part_of_the_requests_gives_the_gradient_and_all_the_usage(
  tiny, windows, plain
):
  environment = make(tiny, gradient_requests=5, usage=True)
  feedback = play(environment)
  first = windows[:5]
  expected = slope(lambda x: log_likelihood(plain(x, first)[0], first))
  np.testing.assert_allclose(feedback.gradient, expected, **CLOSE)
  assert np.abs(expected).max() > 0.1
  assert feedback.gradient_count == 5
  hidden = plain(X, windows)[1]
  router = np.float64(
    tiny.params["params"]["layer_0"]["experts"]["router"]["kernel"]
  )
  usage = np.exp(log_softmax(hidden @ router)).mean((0, 1))
  np.testing.assert_allclose(feedback.usage, usage, rtol=1e-4)
  # Rewards are those of a slot that tells nothing else.
  silent = play(make(tiny))
  assert silent.gradient is None and silent.usage is None
  np.testing.assert_array_equal(feedback.task_count, silent.task_count)
  np.testing.assert_allclose(
    feedback.task_reward, silent.task_reward, atol=1e-6
  )
  # A batch over seeds, each with its own weights, is one after the other.
  weights = jnp.float32([X, np.roll(X, 1)])
  state = environment.init(KEY)
  together = jax.jit(jax.vmap(lambda x: environment.step(KEY, state, x)[0]))(
    weights
  )
  for row in range(2):
    alone = play(environment, weights[row])
    np.testing.assert_allclose(together.gradient[row], alone.gradient, **CLOSE)
    np.testing.assert_allclose(together.usage[row], alone.usage, rtol=1e-4)


def test_entropy_of_the_predictions(tiny, windows, plain):
  feedback = play(make(tiny, gradient_requests=B, signal="entropy"))
  expected = slope(lambda x: minus_entropy(plain(x, windows)[0]))
  np.testing.assert_allclose(feedback.gradient, expected, **CLOSE)
  assert np.abs(expected).max() > 0.1


def test_agreement_with_the_routed_model(tiny, windows, plain):
  feedback = play(make(tiny, gradient_requests=B, signal="agreement"))
  routed = np.float64(
    jax.jit(tiny.model.apply)(tiny.params, jnp.int32(windows[:, :-1]))
  )
  shares = np.exp(log_softmax(routed))

  def minus_divergence(x):
    ratio = log_softmax(plain(x, windows)[0]) - log_softmax(routed)
    return (shares * ratio).sum(-1).mean()

  np.testing.assert_allclose(
    feedback.gradient, slope(minus_divergence), **CLOSE
  )


def test_usage_of_a_routed_slot_is_that_of_its_own_routers(tiny, windows):
  feedback = play(make(tiny, serve="routed", usage=True))
  seen = jax.jit(
    lambda ids: tiny.model.apply(
      tiny.params,
      ids,
      observe=Partial(lambda layer, output: layer.routing.probabilities),
    )[1]
  )(jnp.int32(windows[:, :-1]))
  np.testing.assert_allclose(
    feedback.usage, np.float64(seen).mean((0, 1)), rtol=1e-5
  )


def test_entropy_is_low_for_confident_mistakes(tiny):
  """Expert 0 is sure of byte 7, expert 1 nearly sure of the right byte 3.

  All text is byte 3, whose embedding is the first unit vector, and an expert
  adds one vector to it: 10 times the second, which the last layer reads as
  byte 7, or 3 times the third, which it reads as byte 3.
  """
  params = jax.tree.map(np.zeros_like, tiny.params)
  inner = params["params"]
  inner["embedding"]["bytes"][0, :, 0] = 1.0
  for name in ("attention_norm", "ffn_norm"):
    inner["layer_0"][name]["scale"][:] = 1.0
  inner["final_norm"]["scale"][:] = 1.0
  stack = inner["layer_0"]["experts"]["stack"]
  stack.w_in[:, 0, 0] = 8**-0.5  # the norm made that entry sqrt(8)
  stack.w_out[0, 0, 1] = 10.0
  stack.w_out[1, 0, 2] = 3.0
  inner["logits"]["kernel"][1, 7] = inner["logits"]["kernel"][2, 3] = 4.0
  text = tiny._replace(
    text=data.from_arrays([np.full(90, 3, np.uint8)] * V),
    params=jax.tree.map(jnp.asarray, params),
  )
  uniform = np.full(E, 1 / E)
  by_entropy = play(make(text, gradient_requests=B, signal="entropy"), uniform)
  by_likelihood = play(make(text, gradient_requests=B), uniform)
  assert np.argmax(by_entropy.gradient) == 0
  assert by_likelihood.gradient[0] < 0 < by_likelihood.gradient[1]
  # At the end of either way: all wrong, and all right.
  reward = [play(make(text), np.eye(E)[e]).task_reward[0] for e in (0, 1)]
  np.testing.assert_array_equal(reward, [0.0, 1.0])


def test_differences_of_rewards_are_unbiased_where_they_are_linear():
  """All choices of two or three of four experts, rewards 5 + .3 g_i."""
  slopes = np.array([0.5, -1.0, 2.0, 0.0])
  for merges in (2, 3, 4):
    found = [
      slot_signals.slope_of_differences(
        jnp.float32(5 + 0.3 * slopes[list(chosen)]),
        jnp.eye(4)[jnp.array(chosen)],
        spread=0.3,
      )
      for chosen in itertools.combinations(range(4), merges)
    ]
    # Rewards near 5 in float32, times 3 / .3 at most.
    np.testing.assert_allclose(
      np.mean(found, axis=0), slopes - slopes.mean(), atol=2e-5
    )


def test_requests_are_split_over_merges(tiny, windows, plain):
  """Six of eight requests over all three experts' directions, two as played."""
  environment = make(
    tiny,
    reward="log_likelihood",
    gradient_requests=6,
    signal="differences",
    merges=3,
    spread=0.4,
    usage=True,
  )
  feedback = play(environment)
  # The order in which the experts are taken is the environment's own.
  order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, 2), E))
  rewards, usage = np.zeros(B), np.zeros((B, E))
  router = np.float64(
    tiny.params["params"]["layer_0"]["experts"]["router"]["kernel"]
  )
  for row, window in enumerate(windows):
    x = 0.6 * X + 0.4 * np.eye(E)[order[row // 2]] if row < 6 else X
    logits, hidden = plain(x, window[None])
    rewards[row] = log_likelihood(logits, window[None])
    usage[row] = np.exp(log_softmax(hidden @ router)).mean((0, 1))
  by_expert = np.zeros(E)
  by_expert[order] = rewards[:6].reshape(3, 2).mean(1)
  np.testing.assert_allclose(
    feedback.gradient, (by_expert - by_expert.mean()) / 0.4, **CLOSE
  )
  assert feedback.gradient_count == 6
  np.testing.assert_allclose(feedback.usage, usage.mean(0), rtol=1e-4)
  # The tasks' rewards are what these merges earned.
  total = np.float64(feedback.task_reward) @ np.float64(feedback.task_count)
  np.testing.assert_allclose(total, rewards.sum(), rtol=1e-4)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      {"gradient_requests": 8, "signal": "differences", "merges": 3},
      "merges=3, num_experts=3, gradient_requests=8",
    ),
    (
      {"gradient_requests": 8, "signal": "differences", "merges": 4},
      "merges=4, num_experts=3",
    ),
    (
      {"gradient_requests": 8, "signal": "differences", "spread": 0.0},
      "spread=0.0",
    ),
    ({"gradient_requests": B + 1}, "gradient_requests=9, requests=8"),
    ({"gradient_requests": -1}, "gradient_requests=-1"),
    (
      {"gradient_requests": 1, "serve": "routed"},
      "gradient_requests=1 with serve='routed'",
    ),
    ({"signal": "loss"}, r"\('agreement', .*\), got signal='loss'"),
  ],
)
def test_bad_arguments_are_one_line_errors(tiny, options, message):
  with pytest.raises(ValueError, match=message) as error:
    make(tiny, **options)
  assert "\n" not in str(error.value)


LENGTH = 7  # a row: the tiny model's context of 6 and one


@pytest.fixture(scope="module")
def rows(tiny):
  """Text of rows: three tokens that are read, then from 1 to 4 others."""
  arrays = []
  for text in tiny.arrays:
    found = np.int32(text[: len(text) // LENGTH * LENGTH]).reshape(-1, LENGTH)
    found[:, :3] = ~found[:, :3]
    ends = 4 + np.arange(len(found)) % 4
    found[np.arange(LENGTH) >= ends[:, None]] = -1
    arrays.append(found.reshape(-1))
  return data.from_arrays(arrays, stride=LENGTH)


@pytest.mark.parametrize(
  "signal, most", [("log_likelihood", 2**28), ("entropy", 2 * 6 * 256)]
)
def test_what_is_not_scored_counts_for_nothing(
  tiny, rows, plain, signal, most, monkeypatch
):
  # The second's logits are too many at once: 4 requests go two by two.
  monkeypatch.setattr(scoring, "MOST_LOGITS", most)
  options = {"gradient_requests": 4, "signal": signal, "usage": True}
  feedback = play(
    make(
      tiny._replace(text=rows), reward="log_likelihood", requests=4, **options
    )
  )
  drawn = moe_slots.draw_requests(
    jax.random.split(KEY)[0], rows, MIX, requests=4, context=6
  )
  tasks, windows = (np.int64(x) for x in drawn)
  is_scored = windows[:, 1:] >= 0
  ids = np.where(windows < 0, ~windows, windows)
  assert 4 < is_scored.sum() < 16 and not is_scored[:, :2].any()

  def by_window(x):
    """Each request's log-likelihood and minus its entropy."""
    log_p = log_softmax(plain(x, ids)[0])
    chosen = np.take_along_axis(log_p, ids[:, 1:, None], -1)[..., 0]
    entropy = -(np.exp(log_p) * log_p).sum(-1)
    return [
      [values[keep].mean() for values, keep in zip(of, is_scored, strict=True)]
      for of in (chosen, -entropy)
    ]

  rewards = np.array(by_window(X)[0])
  for task in range(V):
    if (tasks == task).any():
      np.testing.assert_allclose(
        feedback.task_reward[task], rewards[tasks == task].mean(), rtol=1e-4
      )
  expected = slope(lambda x: np.mean(by_window(x)[signal == "entropy"]))
  np.testing.assert_allclose(feedback.gradient, expected, **CLOSE)
  assert np.abs(expected).max() > 0.05
  # An input is padding where nothing scored is behind it.
  is_text = np.cumsum(is_scored[:, ::-1], axis=1)[:, ::-1] > 0
  router = np.float64(
    tiny.params["params"]["layer_0"]["experts"]["router"]["kernel"]
  )
  used = np.exp(log_softmax(plain(X, ids)[1] @ router))
  parts = [slice(0, 4)] if signal != "entropy" else [slice(0, 2), slice(2, 4)]
  usage = np.mean([used[p][is_text[p]].mean(0) for p in parts], axis=0)
  np.testing.assert_allclose(feedback.usage, usage, rtol=1e-4)
