"""GP-UCB plays where the process's upper bound is high."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unwrapped import unwrapped

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback
from tanbr_jax.bandits.linear.gp_model import GpNumbers, gp_model

SIZES = {"num_experts": 3, "num_tasks": 2, "capacity": 8}
NUMBERS = {"exploration": 0.7, "prior_scale": 2.0, "noise": 0.2}
LENGTHS = {"length_scale": 0.5, "mix_length_scale": 0.5}


def test_no_vertex_and_no_grid_point_has_a_much_higher_bound():
  bandit = unwrapped(bandits.gp_ucb(**SIZES, **NUMBERS, **LENGTHS))
  model = gp_model(**SIZES, numbers=GpNumbers(**NUMBERS, **LENGTHS))
  select, update = jax.jit(bandit.select), jax.jit(bandit.update)
  state = bandit.init(jax.random.key(0))
  # All weights in tenths.
  grid = np.array(
    [[i, j, 10 - i - j] for i in range(11) for j in range(11 - i)], np.float32
  )
  grid = jnp.asarray(grid / 10)

  @jax.jit
  def bounds(state, mix, points):
    estimate = model.estimate(jax.random.key(0), state, mix)
    return jax.vmap(lambda weights: sum(estimate(weights)))(points)

  rng = np.random.default_rng(0)
  for t in range(12):
    mix = jnp.asarray(rng.dirichlet(np.ones(2)), jnp.float32)
    decision = select(jax.random.key(t), state, Context(mix))
    weights = decision.merge_weights
    scores = bounds(state.model, mix, jnp.concatenate([weights[None], grid]))
    np.testing.assert_allclose(
      scores[0],
      decision.aux["predicted_reward"] + decision.aux["exploration_bonus"],
      rtol=1e-4,
    )
    vertices = scores[1:][jnp.max(grid, axis=1) == 1]
    assert float(scores[0]) >= float(jnp.max(vertices)) - 1e-4
    # The ascent is local: a tenth of the bound's range is allowed.
    spread = float(jnp.max(scores) - jnp.min(scores))
    assert float(jnp.max(scores) - scores[0]) <= 0.1 * spread + 1e-4
    reward = jnp.asarray(rng.normal(0, 1, 2), jnp.float32)
    feedback = Feedback(reward, jnp.ones(2, jnp.int32))
    state = update(jax.random.key(t), state, Context(mix), decision, feedback)


def test_bad_input():
  with pytest.raises(ValueError, match="noise=-1"):
    bandits.gp_ucb(num_experts=3, num_tasks=2, noise=-1.0)
