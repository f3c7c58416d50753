"""Multi-task Thompson sampling: what it plays, learns and refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unwrapped import unwrapped

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback
from tanbr_jax.bandits.candidates import ascent_starts
from tanbr_jax.bandits.linear.multitask_model import multitask_model

E, V = 3, 2


@pytest.fixture(scope="module")
def bandit():
  return unwrapped(
    bandits.multitask_ts(num_experts=E, num_tasks=V, num_fourier=4)
  )


def test_plays_no_worse_than_the_best_of_a_fine_grid_of_its_draw(bandit):
  context = Context(jnp.asarray([0.3, 0.7], jnp.float32))
  init, select = jax.jit(bandit.init), jax.jit(bandit.select)
  update = jax.jit(bandit.update)
  state = init(jax.random.key(0))
  for t in range(60):
    decision = select(jax.random.key(t), state, context)
    x = decision.merge_weights
    x = np.asarray(x)
    reward = np.stack([-np.sum((x - np.float32(0.3)) ** 2), x[0]])
    feedback = Feedback(reward, jnp.ones(V, jnp.int32))
    state = update(jax.random.key(t), state, context, decision, feedback)
  steps = np.linspace(0, 1, 41)
  grid = np.array(
    [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9]
  )
  # The draw that `select` made, from the same key.
  model = bandit.select.args[0]

  @jax.jit
  def score(key, state, points):
    key = jax.random.split(key)[0]
    estimate = model.estimate(key, state.model, context.task_mix)
    return jax.vmap(lambda x: sum(estimate(x)))(points)

  decision = select(jax.random.key(9), state, context)
  scores = score(jax.random.key(9), state, grid.astype(np.float32))
  played = sum(
    float(decision.aux[k]) for k in ("predicted_reward", "exploration_bonus")
  )
  spread = float(scores.max() - scores.min())
  assert played >= float(scores.max()) - 0.01 * spread


def test_thompson_and_ucb_bonuses_agree_in_spread():
  models = {
    rule: multitask_model(num_experts=E, num_tasks=V, rule=rule, num_fourier=3)
    for rule in ("thompson", "ucb")
  }
  mix = jnp.asarray([0.4, 0.6], jnp.float32)
  x = jnp.asarray([0.2, 0.5, 0.3], jnp.float32)
  model = models["thompson"]
  state = jax.jit(model.init)(jax.random.key(0))
  feedback = Feedback(jnp.asarray([0.3, 0.1]), jnp.ones(V, jnp.int32))
  state = jax.jit(model.update)(jax.random.key(0), state, mix, x, feedback)
  keys = jax.random.split(jax.random.key(1), 4000)
  other = jnp.asarray([0.6, 0.2, 0.2], jnp.float32)

  @jax.jit
  def estimate(keys, state):
    draw = jax.vmap(lambda k: model.estimate(k, state, mix)(other)[1])
    _, width = models["ucb"].estimate(keys[0], state, mix)(other)
    return draw(keys), width

  draws, width = estimate(keys, state)
  # A standard deviation of 4,000 draws is off by about 1.1 %.
  assert float(jnp.std(draws)) == pytest.approx(float(width), rel=0.05)
  assert abs(float(jnp.mean(draws))) < 0.05 * float(width)


def test_starts_are_added_one_by_one():
  seen = []

  class Spy:
    num_starts = 1

    def __call__(self, score, candidates, active):
      seen.append(int(jnp.sum(active)))
      raise StopIteration

  bandit = unwrapped(
    bandits.multitask_ts(num_experts=E, num_tasks=V, num_fourier=2)
  )
  model, shape, _, growth = bandit.select.args
  select = bandit.select.func
  context = Context(jnp.full(V, 1 / V, jnp.float32))
  state = bandit.init(jax.random.key(0))
  for rounds in (0, 9, 19, 29, 100_000):
    with pytest.raises(StopIteration):
      select(
        model,
        shape,
        Spy(),
        growth,
        jax.random.key(0),
        state._replace(num_rounds=jnp.int32(rounds)),
        context,
      )
  # One every ten rounds, until the 32 draws, the vertices, the centre and the
  # weights played last are all there.
  assert seen == [1, 2, 3, 4, 32 + E + 2]


def test_rewards_in_other_units_change_nothing_but_the_units():
  def model_after(scale):
    # The concavity has the rewards' unit.
    model = multitask_model(
      num_experts=E,
      num_tasks=V,
      num_fourier=3,
      rule="ucb",
      concavity=4 * scale,
    )
    mix = jnp.full(V, 1 / V, jnp.float32)
    state = jax.jit(model.init)(jax.random.key(0))
    starts = jax.jit(ascent_starts, static_argnums=2)(
      jax.random.key(3), np.full(E, 1 / E, np.float32), 10
    )
    update = jax.jit(model.update)
    for x in np.asarray(starts):
      reward = np.float32(scale) * np.stack([x[0] - x[1], 1 + x[2] ** 2])
      feedback = Feedback(reward, jnp.ones(V, jnp.int32))
      state = update(jax.random.key(0), state, mix, x, feedback)

    @jax.jit
    def estimate(state, x):
      return model.estimate(jax.random.key(0), state, mix)(x)

    mean, width = estimate(state, starts[0])
    return float(mean), float(width)

  one, hundred = model_after(1.0), model_after(100.0)
  # The first slot's noise is the only number with a unit; the first reward
  # replaces it.
  np.testing.assert_allclose(np.divide(hundred, 100), one, rtol=1e-2)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"rule": "greedy"}, "greedy"),
    ({"num_fourier": -1}, "num_fourier=-1"),
    ({"length_scale": 0.0}, "length_scale=0.0"),
    ({"forgetting": 2.0}, "forgetting=2.0"),
    ({"num_starts": 0}, "num_starts=0"),
    ({"num_candidates": -1}, "num_candidates=-1"),
    ({"candidate_growth": 0.0}, "candidate_growth=0.0"),
    ({"exploration": -1.0}, "exploration=-1.0"),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(ValueError, match=words):
    bandits.multitask_ts(num_experts=E, num_tasks=V, **options)
