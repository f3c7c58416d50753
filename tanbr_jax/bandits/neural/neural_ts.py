"""NeuralTS: Thompson sampling from a network's linearised posterior.

Zhang, Zhou, Li, Gu, "Neural Thompson Sampling", ICLR 2021, Algorithm 1: the
reward of candidate x is drawn from N(f(x), nu^2 sigma^2(x)) with sigma^2 =
lambda g' Z^-1 g / m, for each candidate anew, and the largest draw is played.
[R] The features are those of the last layer, the network and its training
those of `neural_ucb`.
"""

from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.candidates import make_source
from tanbr_jax.bandits.model_bandit import highest_draw, model_bandit
from tanbr_jax.bandits.neural.neural_learner import Learner, make_rates
from tanbr_jax.bandits.neural.neural_model import (
  Numbers,
  neural_model,
  times_root_lambda,
)
from tanbr_jax.bandits.neural.neural_training import ADAM
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, NonNegative, Positive


@ranges.checked
def neural_ts(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  num_candidates: Count = 20,
  exploration: NonNegative = 0.3,
  regularisation: Positive = 0.01,
  learning_rate: NonNegative = 3e-3,
  hidden: tuple[Count, ...] = (64, 64),
  num_steps: Count = 2,
  replay_capacity: Count = 4096,
) -> Bandit:
  """NeuralTS: plays the candidate of the highest sampled reward.

  Its decisions' exploration_bonus is what the sample added to the mean.

  Args:
    num_experts: E.
    num_tasks: V.
    num_candidates: fresh uniform draws a round.
    exploration: nu, factor of the width in units of the rewards' spread.
    regularisation: lambda, Z_0 = lambda I.
    learning_rate: of the network's Adam.
    hidden: widths of the network's hidden layers.
    num_steps: gradient steps a round.
    replay_capacity: the last slots that are trained on.

  Raises:
    ValueError: if a number is out of range.
  """
  learner = Learner(
    ADAM, num_experts, num_tasks, tuple(hidden), num_steps, replay_capacity
  )
  factor = times_root_lambda(exploration, regularisation)
  numbers = Numbers(factor, regularisation, make_rates(learning_rate))
  return model_bandit(
    neural_model(learner, numbers),
    make_source("dirichlet", num_experts, num_candidates),
    Partial(highest_draw),
  )
