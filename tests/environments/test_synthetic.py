import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import monitor as monitors
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.environments.requests import draw_counts, draw_tasks

V = 3
E = 4
MIX = jnp.array([0.7, 0.3, 0.0])


def _environment(family="quadratic", *, mix=None, **options):
  return synthetic.synthetic(
    family,
    num_experts=E,
    num_tasks=V,
    task_mix=mixes.fixed(MIX) if mix is None else mix,
    **options,
  )


@jax.jit
def _rollout(environment, key, weights):
  def body(state, step_key):
    context = environment.context(state)
    feedback, outcome, state = environment.step(step_key, state, weights)
    return state, (context, feedback, outcome)

  init_key, scan_key = jax.random.split(key)
  keys = jax.random.split(scan_key, 2000)
  return jax.lax.scan(body, environment.init(init_key), keys)[1]


def test_feedback_is_the_mean_plus_noise_of_the_given_size():
  environment = _environment(noise=0.2)
  weights = jnp.full(E, 1 / E)
  context, feedback, outcome = _rollout(environment, jax.random.key(0), weights)
  assert (feedback.task_count == 1).all()
  assert feedback.task_count.dtype == jnp.int32
  state = environment.init(jax.random.split(jax.random.key(0))[0])
  mean = -((np.full(E, 1 / E) - np.asarray(state.landscape)) ** 2).sum(1)
  noise = np.asarray(feedback.task_reward) - mean
  # 2,000 slots: standard error .2 / sqrt(2000) = .0045, and 1.6 % of the std.
  np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.02)
  np.testing.assert_allclose(noise.std(0), 0.2, rtol=0.08)
  assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.1
  np.testing.assert_allclose(outcome.expected_reward, mean @ MIX, atol=1e-6)
  np.testing.assert_allclose(
    outcome.realised_reward, feedback.task_reward @ MIX, atol=1e-6
  )
  np.testing.assert_array_equal(
    context.task_mix, np.broadcast_to(MIX, (2000, V))
  )


def test_requests_give_multinomial_counts_and_their_noise():
  environment = _environment(noise=0.2, requests=4)
  weights = jnp.full(E, 1 / E)
  _, feedback, outcome = _rollout(environment, jax.random.key(1), weights)
  count = np.asarray(feedback.task_count)
  assert (count.sum(1) == 4).all() and (count[:, 2] == 0).all()
  # Binomial(4, .7): mean 2.8, variance .84; 2,000 slots.
  assert count[:, 0].mean() == pytest.approx(2.8, abs=0.1)
  assert count[:, 0].var() == pytest.approx(0.84, rel=0.12)
  reward = np.asarray(feedback.task_reward)
  assert (reward[count == 0] == 0).all()
  state = environment.init(jax.random.split(jax.random.key(1))[0])
  mean = -((np.full(E, 1 / E) - np.asarray(state.landscape)) ** 2).sum(1)
  for requests in (1, 2, 3, 4):
    seen = count[:, 0] == requests
    noise = reward[seen, 0] - mean[0]
    # At least 150 slots each: 6 % of a standard deviation.
    assert noise.std() == pytest.approx(0.2 / np.sqrt(requests), rel=0.2)
  np.testing.assert_allclose(
    outcome.realised_reward, (reward * count).sum(1) / 4, atol=1e-6
  )


def test_stream_does_not_depend_on_the_weights():
  environment = _environment(
    "saturating", mix=mixes.drift(num_tasks=V, rate=0.1), requests=5
  )
  key = jax.random.key(2)
  first = _rollout(environment, key, jnp.full(E, 1 / E))
  second = _rollout(environment, key, jnp.eye(E)[0])
  np.testing.assert_array_equal(first[1].task_count, second[1].task_count)
  for field in ("task_mix", "optimal_reward", "optimal_weights"):
    np.testing.assert_array_equal(
      getattr(first[2], field), getattr(second[2], field)
    )
  assert (first[2].expected_reward != second[2].expected_reward).any()


@pytest.mark.parametrize("family", ["quadratic", "saturating"])
def test_regret_is_not_negative_and_zero_at_the_optimum(family):
  environment = _environment(family, mix=mixes.drift(num_tasks=V, rate=0.1))

  @jax.jit
  def play(environment, key):
    def body(state, step_key):
      drawn = jax.nn.softmax(2 * jax.random.normal(step_key, (E,)))
      _, random, _ = environment.step(step_key, state, drawn)
      _, best, state = environment.step(step_key, state, random.optimal_weights)
      return state, (
        random.optimal_reward - random.expected_reward,
        best.optimal_reward - best.expected_reward,
      )

    keys = jax.random.split(key, 200)
    return jax.lax.scan(body, environment.init(key), keys)[1]

  of_random, of_best = play(environment, jax.random.key(3))
  # 1e-4 is the promised accuracy of the optimum; the second is rounding.
  assert of_random.min() > -1e-4 and of_random.mean() > 0.01
  np.testing.assert_allclose(of_best, 0.0, atol=1e-6)


def test_monitor_sees_earlier_slots_only():
  monitor = monitors.exponential_moving_average(num_tasks=V, decay=0.5)
  environment = _environment(requests=3, monitor=monitor)
  context, feedback, _ = _rollout(
    environment, jax.random.key(4), jnp.full(E, 1 / E)
  )
  state = monitor.init()
  for slot in range(5):
    np.testing.assert_allclose(
      context.task_mix[slot], monitor.estimate(state), atol=1e-6
    )
    state = monitor.update(state, feedback.task_count[slot])


def test_tasks_follow_the_mix_and_make_the_counts():
  key = jax.random.key(5)
  tasks = np.asarray(draw_tasks(key, MIX, requests=10_000))
  counts = np.asarray(draw_counts(key, MIX, requests=10_000))
  np.testing.assert_array_equal(np.bincount(tasks, minlength=V), counts)
  # Standard error of a share: sqrt(.21 / 10,000) = .0046.
  np.testing.assert_allclose(counts / 10_000, MIX, atol=0.02)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"family": "cubic"}, r"'quadratic', .*, got family='cubic'"),
    ({"num_experts": 1}, "num_experts=1"),
    ({"noise": -0.1}, "noise=-0.1"),
    ({"noise_kind": "uniform"}, "'task_dependent'.*, got noise_kind='uniform'"),
    ({"reward_drift": -0.1}, r"\[0, 0.5\], got .*=-0.1"),
    ({"family": "plateau", "reward_drift": 0.1, "num_tasks": 7}, "num_tasks"),
    ({"requests": 0}, "requests=0"),
    ({"monitor": "any"}, "requests=None"),
    ({"num_tasks": 4}, r"shape \[3\], num_tasks=4"),
  ],
)
def test_bad_arguments_are_one_line_errors(options, message):
  arguments = {
    "family": "quadratic",
    "num_experts": E,
    "num_tasks": V,
    "task_mix": mixes.fixed(MIX),
  } | options
  with pytest.raises(ValueError, match=message) as error:
    synthetic.synthetic(arguments.pop("family"), **arguments)
  assert "\n" not in str(error.value)
