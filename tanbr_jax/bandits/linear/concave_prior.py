"""A reward model whose prior mean falls away from the plain average.

A linear model with a prior mean of 0 believes, before it has seen anything,
that the far corners of the simplex are as good as the plain average, and the
more experts there are the more directions it has to be wrong in: what it
explores by sends it there. Averages of experts that were trained alike are
seldom bad, and a single expert seldom best. So the prior mean is

  m(x) = -concavity |x - 1/E|^2,

and what is learnt is the rest, r(x) - m(x), with a prior mean of 0: leaving the
centre has a price from the first slot on, which data may take back. A greedy
step along a slope g then goes to g / (2 concavity), so that what is uncertain
is tried near the centre, and what is known further away. It is the Bayesian
form of a conservative bandit, which leaves a baseline only as far as it can
afford (Wu et al., "Conservative bandits", ICML 2016; Kazerouni et al.,
"Conservative contextual linear bandits", NIPS 2017); unlike theirs it has no
guarantee. [R] Letters: E experts.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.reward_model import RewardModel


def _fall(concavity: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns m(x) []."""
  return -concavity * jnp.sum((weights - 1 / weights.shape[0]) ** 2)


def _estimate(model: RewardModel, concavity, key, state, task_mix):
  rest = model.estimate(key, state, task_mix)

  def estimate(weights):
    mean, bonus = rest(weights)
    return mean + _fall(concavity, weights), bonus

  return estimate


def _update(model, concavity, key, state, task_mix, weights, feedback):
  reward = feedback.task_reward - _fall(concavity, weights)
  feedback = feedback._replace(task_reward=reward)
  if feedback.gradient is not None:
    slope = jax.grad(_fall, argnums=1)(concavity, weights)
    feedback = feedback._replace(gradient=feedback.gradient - slope)
  return model.update(key, state, task_mix, weights, feedback)


def with_concave_prior(
  model: RewardModel, concavity: float | jax.Array
) -> RewardModel:
  """Returns a model that learns the rewards less m(x), and adds m(x) again.

  The mean of every task is m(x) before the first slot.

  Args:
    model: of the rest, with a prior mean of 0.
    concavity: in units of the rewards that the model is told; at 0 the model is
      the one that is given.
  """
  concavity = jnp.float32(concavity)
  return RewardModel(
    model.init,
    Partial(_estimate, model, concavity),
    Partial(_update, model, concavity),
  )
