import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import data, models
from tanbr_jax import monitor as monitors
from tanbr_jax.environments import mixes, moe_slots
from tanbr_jax.environments.oracle.table import OracleTable
from tanbr_jax.models.fine_tunes import BASE, LowRank, Variants

V = 3
E = 3
B = 12
MIX = jnp.array([0.6, 0.4, 0.0])
KEY = jax.random.key(3)

step = jax.jit(lambda env, *args: env.step(*args))


@pytest.fixture(scope="module")
def table():
  weights = jnp.concatenate([jnp.eye(E), jnp.full((1, E), 1 / E)])
  # Under MIX: .6, .4, .0 and .55: the first expert is the oracle's choice.
  rewards = jnp.concatenate([jnp.eye(V), jnp.array([[0.55, 0.55, 0.0]])])
  return OracleTable(weights, rewards)


@pytest.fixture
def make(tiny, table):
  return functools.partial(
    moe_slots.moe_slots,
    tiny.model,
    tiny.params,
    tiny.text,
    task_mix=mixes.fixed(MIX),
    optimal_table=table,
    requests_per_slot=B,
  )


def _requests(tiny, key=KEY, context=6):
  """The slot's requests, as the environment draws them."""
  request_key = jax.random.split(key)[0]
  tasks, windows = moe_slots.draw_requests(
    request_key, tiny.text, MIX, requests=B, context=context
  )
  return np.asarray(tasks), np.asarray(windows)


def _by_loop(tiny, tasks, windows, apply):
  """Right predictions by window, from logits of one window at a time."""
  accuracy = []
  for window in windows.astype(np.int32):
    logits = np.asarray(apply(window[None, :-1])[0])
    accuracy.append(np.mean(logits.argmax(-1) == window[1:]))
  accuracy = np.asarray(accuracy)
  by_task = [
    accuracy[tasks == v].mean() if (tasks == v).any() else 0.0 for v in range(V)
  ]
  return accuracy, by_task


def test_windows_come_from_their_task(tiny):
  tasks, windows = _requests(tiny)
  assert windows.shape == (B, 7) and set(tasks) <= {0, 1}
  for task, window in zip(tasks, windows, strict=True):
    views = np.lib.stride_tricks.sliding_window_view(tiny.arrays[task], 7)
    assert (views == window).all(1).any()


def test_merged_slot_against_a_loop_over_windows(tiny, make):
  environment = make()
  weights = jnp.array([0.2, 0.5, 0.3])
  feedback, outcome, _ = step(environment, KEY, environment.init(KEY), weights)
  dense, dense_params = models.merge(tiny.model, tiny.params, weights)
  tasks, windows = _requests(tiny)
  apply = jax.jit(lambda ids: dense.apply(dense_params, input_ids=ids))
  accuracy, by_task = _by_loop(tiny, tasks, windows, apply)
  np.testing.assert_array_equal(
    feedback.task_count, np.bincount(tasks, minlength=V)
  )
  # Means of at most 72 zeros and ones in float32.
  np.testing.assert_allclose(feedback.task_reward, by_task, atol=1e-6)
  assert float(outcome.expected_reward) == pytest.approx(
    accuracy.mean(), abs=1e-6
  )
  assert outcome.realised_reward == outcome.expected_reward


def test_one_hot_weights_serve_that_expert(tiny, make):
  """Without merging: the dense model with the expert's own matrices."""
  environment = make(reward="log_likelihood")
  dense, dense_params = models.merge(tiny.model, tiny.params, jnp.eye(E)[0])
  score = jax.jit(lambda params, windows: models.score(dense, params, windows))
  for expert in range(E):
    stack = tiny.params["params"]["layer_0"]["experts"]["stack"]
    dense_params["params"]["layer_0"]["experts"]["stack"] = type(
      dense_params["params"]["layer_0"]["experts"]["stack"]
    )(w_in=stack.w_in[expert], w_out=stack.w_out[expert])
    _, outcome, _ = step(
      environment, KEY, environment.init(KEY), jnp.eye(E)[expert]
    )
    _, windows = _requests(tiny)
    loss = score(dense_params, jnp.asarray(windows)).loss
    assert float(outcome.expected_reward) == pytest.approx(
      -float(loss.mean()), abs=1e-5
    )


def test_routed_slot_ignores_the_weights(tiny, make):
  environment = make(serve="routed")
  state = environment.init(KEY)
  tasks, windows = _requests(tiny)
  apply = jax.jit(lambda ids: tiny.model.apply(tiny.params, input_ids=ids))
  _, by_task = _by_loop(tiny, tasks, windows, apply)
  for weights in jnp.eye(E)[:2]:
    feedback, _, _ = step(environment, KEY, state, weights)
    np.testing.assert_allclose(feedback.task_reward, by_task, atol=1e-6)


def test_optimum_is_the_tables_choice_on_the_same_requests(make, table):
  paired = make(reward="log_likelihood")
  state = paired.init(KEY)
  _, of_best, _ = step(paired, KEY, state, jnp.eye(E)[0])
  # Two forwards of the same numbers, which XLA may fuse differently.
  np.testing.assert_allclose(
    of_best.optimal_reward, of_best.expected_reward, atol=1e-5
  )
  np.testing.assert_array_equal(of_best.optimal_weights, table.weights[0])
  _, of_other, _ = step(paired, KEY, state, jnp.eye(E)[1])
  assert of_other.optimal_reward == of_best.optimal_reward
  assert of_other.expected_reward != of_best.expected_reward
  estimated = make(paired=False)
  _, outcome, _ = step(estimated, KEY, state, jnp.eye(E)[1])
  assert float(outcome.optimal_reward) == pytest.approx(0.6, abs=1e-6)


@pytest.fixture(scope="module")
def decoder():
  """A model of another family, over 64 tokens, without a longest sequence."""
  model = models.Decoder(models.preset("tiny", num_experts=E))
  return model, jax.jit(model.init)(jax.random.key(2))


def _of_decoder(decoder, tiny, table, **options):
  return moe_slots.moe_slots(
    *decoder,
    data.from_arrays([text.astype(np.int32) for text in tiny.arrays]),
    task_mix=mixes.fixed(MIX),
    optimal_table=table,
    requests_per_slot=B,
    **options,
  )


def test_any_model_serves_slots(decoder, tiny, table):
  environment = _of_decoder(decoder, tiny, table, context=5)
  weights = jnp.array([0.2, 0.5, 0.3])
  feedback, outcome, _ = step(environment, KEY, environment.init(KEY), weights)
  dense, dense_params = models.merge(*decoder, weights)
  tasks, windows = _requests(tiny, context=5)
  apply = jax.jit(lambda ids: dense.apply(dense_params, ids))
  accuracy, by_task = _by_loop(tiny, tasks, windows, apply)
  np.testing.assert_allclose(feedback.task_reward, by_task, atol=1e-6)
  assert float(outcome.expected_reward) == pytest.approx(
    accuracy.mean(), abs=1e-6
  )


def test_refuses_tokens_and_contexts_that_a_model_does_not_have(
  decoder, tiny, table
):
  with pytest.raises(ValueError, match="context=None, model's context=None"):
    _of_decoder(decoder, tiny, table)
  small = models.Decoder(models.preset("tiny", num_experts=E, vocab_size=19))
  with pytest.raises(ValueError, match="got token 19 for vocab_size=19"):
    _of_decoder((small, decoder[1]), tiny, table, context=5)


def test_stream_does_not_depend_on_the_weights(make):
  monitor = monitors.exponential_moving_average(num_tasks=V, decay=0.5)
  environment = make(
    monitor=monitor,
    task_mix=mixes.drift(num_tasks=V, rate=0.2),
    paired=False,
  )

  @jax.jit
  def play(environment, weights):
    def body(state, key_and_weights):
      context = environment.context(state)
      feedback, outcome, state = environment.step(
        key_and_weights[0], state, key_and_weights[1]
      )
      return state, (
        context.task_mix,
        outcome.task_mix,
        feedback.task_count,
        outcome.expected_reward,
      )

    keys = jax.random.split(KEY, 20)
    return jax.lax.scan(body, environment.init(KEY), (keys, weights))[1]

  first = play(environment, jnp.tile(jnp.eye(E)[:1], (20, 1)))
  second = play(environment, jax.random.dirichlet(KEY, jnp.ones(E), (20,)))
  for one, other in zip(first[:3], second[:3], strict=True):
    np.testing.assert_array_equal(one, other)
  assert (first[3] != second[3]).any()
  state = monitor.init()
  for slot in range(5):
    np.testing.assert_allclose(
      first[0][slot], monitor.estimate(state), atol=1e-6
    )
    state = monitor.update(state, first[2][slot])


def test_model_and_text_are_leaves(tiny, make):
  sizes = {leaf.size for leaf in jax.tree.leaves(make())}
  assert tiny.text.tokens.size in sizes
  assert max(leaf.size for leaf in jax.tree.leaves(tiny.params)) in sizes
  # Built again from equal parts: the same structure, so nothing compiles.
  again = make()
  assert jax.tree.structure(make()) == jax.tree.structure(again)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"serve": "soft"}, "'soft'"),
    ({"reward": "loss"}, "'loss'"),
    ({"requests_per_slot": 0}, "requests_per_slot=0"),
    ({"context": 7}, "context=7, model's context=6"),
    ({"task_mix": mixes.fixed(num_tasks=4)}, r"\[4\], num_tasks=3"),
    (
      {"optimal_table": OracleTable(jnp.ones((1, 2)), jnp.ones((1, 3)))},
      r"\(V, E\)=\(3, 2\), expected \(3, 3\)",
    ),
  ],
)
def test_bad_arguments_are_one_line_errors(make, options, message):
  with pytest.raises(ValueError, match=message) as error:
    make(**options)
  assert "\n" not in str(error.value)


def test_text_shorter_than_the_context(tiny, make):
  short = data.from_arrays([np.zeros(6, np.uint8)] * 3)
  build = functools.partial(
    moe_slots.moe_slots, tiny.model, tiny.params, short, **make.keywords
  )
  with pytest.raises(ValueError, match="shortest text=6"):
    build()


@pytest.fixture(scope="module")
def fine_tunes():
  """Three fine-tunes that differ in their embedding and their queries."""
  config = models.preset(
    "tiny",
    num_layers=1,
    num_experts=None,
    num_selected=1,
    shared_dim=None,
    vocab_size=24,
  )
  model = models.FineTunes(models.Decoder(config), ("a", "b", "c"))
  rng = np.random.default_rng(1)

  def draw(*shape):
    return jnp.asarray(0.6 * rng.normal(size=shape), jnp.float32)

  shapes = jax.eval_shape(model.dense.init, jax.random.key(0))
  params = jax.tree.map(lambda leaf: draw(*leaf.shape), shapes)
  tree = params["params"]
  table = draw(E, *tree["embedding"].shape)
  attention = tree["layer_0"]["attention"]
  values = attention["query_key_value"][None]
  update = LowRank(draw(5, 64), draw(16, 5), ((0, 1), (1, 2), (2, 2)))
  attention["query_key_value"] = Variants(values, (BASE,), (update,))
  tree["embedding"] = Variants(table, (0, 1, 2))
  return model, params


def test_fine_tunes_are_served_merged(tiny, table, fine_tunes):
  model, params = fine_tunes
  environment = moe_slots.moe_slots(
    model,
    params,
    tiny.text,
    task_mix=mixes.fixed(MIX),
    optimal_table=table,
    requests_per_slot=B,
    context=6,
    paired=False,
    reward="log_likelihood",
    gradient_requests=B,
  )
  weights = jnp.array([0.2, 0.5, 0.3])
  feedback, outcome, _ = step(environment, KEY, environment.init(KEY), weights)
  _, windows = _requests(tiny)

  @jax.jit
  def reward(weights, windows):
    dense, merged = models.merge(model, params, weights)
    return -jnp.mean(models.score(dense, merged, windows).loss)

  expected = reward(weights, windows)
  np.testing.assert_allclose(outcome.expected_reward, expected, rtol=1e-5)
  # Central differences: rewards near 5 round to 3e-7, over twice the step are
  # 4e-4; third derivatives of up to 500 make as much.
  size = 0.002
  moved = [weights + size * row for row in (*np.eye(E), *-np.eye(E))]
  values = np.array([reward(jnp.float32(x), windows) for x in moved])
  slopes = (values[:E] - values[E:]) / (2 * size)
  np.testing.assert_allclose(
    feedback.gradient, slopes - slopes.mean(), atol=1e-3
  )


@pytest.mark.parametrize(
  "given",
  [
    {"serve": "routed"},
    {"usage": True},
    {"signal": "agreement", "gradient_requests": 2},
  ],
)
def test_fine_tunes_have_no_router_to_ask(tiny, table, fine_tunes, given):
  with pytest.raises(ValueError, match="fine-tunes have no router"):
    moe_slots.moe_slots(
      *fine_tunes,
      tiny.text,
      task_mix=mixes.fixed(MIX),
      optimal_table=table,
      context=6,
      **given,
    )
