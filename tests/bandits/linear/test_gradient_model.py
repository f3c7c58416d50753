"""A reward model that is told gradients: what it learns, and what not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.linear.multitask_model import multitask_model

E, V = 4, 2
CENTRES = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1]], np.float32)
MODEL = multitask_model(
  num_experts=E, num_tasks=V, gradients=True, concavity=0.5
)
KEY = jax.random.key(0)
MIX = jnp.asarray([0.25, 0.75], jnp.float32)


def _gradients(state):
  """The model that is told gradients, inside of what keeps it cautious."""
  return state.model.model.model


def rewards(weights):
  return -jnp.sum((weights[None, :] - CENTRES) ** 2, axis=1)


def told(weights, noise, gradient_count=1):
  """Rewards and the gradient of their mean over requests 1 to 3."""
  gradient = jnp.asarray([0.25, 0.75]) @ (2 * (CENTRES - weights[None, :]))
  return Feedback(
    rewards(weights),
    jnp.asarray([1, 3], jnp.int32),
    gradient - jnp.mean(gradient) + noise,
    gradient_count=jnp.int32(gradient_count),
  )


@jax.jit
def learn(noise, points):
  """The state after a slot at each point, with the gradients' noise."""

  def step(state, slot):
    weights, extra = slot
    feedback = told(weights, extra - jnp.mean(extra))
    return MODEL.update(KEY, state, MIX, weights, feedback), None

  return jax.lax.scan(step, MODEL.init(KEY), (points, noise))[0]


@jax.jit
def slope(state, weights):
  """The derivative of the model's mean reward, without its mean."""
  mean = lambda x: MODEL.estimate(jax.random.key(0), state, MIX)(x)[0]  # noqa: E731
  gradient = jax.grad(mean)(weights)
  return gradient - jnp.mean(gradient)


def draw_points(num_slots, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.dirichlet(np.ones(E), num_slots), jnp.float32)


def test_it_knows_the_slope_where_it_was_told():
  """Two slots fix the derivative there, which their rewards alone cannot."""
  points = draw_points(2)
  state = learn(jnp.zeros((2, E), jnp.float32), points)
  for weights in points:
    expected = told(weights, 0.0).gradient
    # A tenth of the first gradient's square is taken for noise, so that about
    # that share of what the prior leaves open stays open.
    np.testing.assert_allclose(
      slope(state, weights), expected, atol=0.2 * np.abs(expected).max()
    )


@pytest.mark.parametrize("size", [0.05, 0.5])
def test_it_learns_the_size_of_the_noise(size):
  rng = np.random.default_rng(1)
  noise = jnp.asarray(size * rng.normal(size=(150, E)), jnp.float32)
  state = learn(noise, draw_points(150))
  # An average of about 150 normal directions: a deviation of sqrt(2 / 150) =
  # 12 % of the variance, and the first slots' innovations have not faded whole.
  np.testing.assert_allclose(np.sqrt(_gradients(state).noise), size, rtol=0.3)


def test_a_slot_without_a_gradient_teaches_its_rewards_alone():
  point, other = draw_points(2)
  state = learn(jnp.zeros((1, E), jnp.float32), point[None])
  plain = multitask_model(num_experts=E, num_tasks=V, concavity=0.5)
  update = jax.jit(MODEL.update)
  # The same state, less what only gradients need.
  earned, prior = state.model, state.model.model
  prior = prior._replace(model=prior.model.posterior)
  without_gradients = state._replace(model=earned._replace(model=prior))
  expected = jax.jit(plain.update)(
    KEY,
    without_gradients,
    MIX,
    other,
    told(other, 0.0),
  )
  for feedback in (
    told(other, 0.0, gradient_count=0),
    told(other, jnp.nan),
    told(other, jnp.inf),
  ):
    after = update(KEY, state, MIX, other, feedback)
    # Two programs: rounding alone.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      _gradients(after).posterior,
      _gradients(expected),
    )
    assert float(_gradients(after).num_gradients) == 1
    assert float(_gradients(after).noise) == float(_gradients(state).noise)


@pytest.mark.parametrize("name", ["multitask_ts", "tanbr"])
def test_bandits_say_what_they_need(name):
  make = bandits.REGISTRY[name]
  sizes = {"num_experts": E, "num_tasks": V}
  assert make(**sizes).needs == ()
  assert make(**sizes, gradients=True).needs == ("gradient",)
