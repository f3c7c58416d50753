"""NeuralUCB: a network's reward plus the width of its gradient features.

Zhou, Li, Gu, "Neural Contextual Bandits with UCB-based Exploration", ICML
2020; with fresh random candidates the baseline Nucb of arXiv 2509.19781. Three
forms: `neural_ucb`, our small schedule; `neural_ucb_theory`, the paper's
algorithm; `neural_ucb_practical`, that of the authors' public code.
"""

from typing import Annotated

from tanbr_jax.bandits.base import Bandit, check_state_size
from tanbr_jax.bandits.model_bandit import model_bandit, named_candidates
from tanbr_jax.bandits.neural.neural_learner import Learner, make_rates
from tanbr_jax.bandits.neural.neural_model import (
  Numbers,
  Theorem,
  neural_model,
  times_root_lambda,
)
from tanbr_jax.bandits.neural.neural_training import (
  ADAM,
  GRADIENT_DESCENT,
  SGD,
)
from tanbr_jax.bandits.neural.reward_network import fan_in_init, symmetric_init
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  Inner,
  NonNegative,
  Positive,
  Range,
  Real,
  Whole,
)

# Of rewards spread evenly over [0, 1], where the theorem has them.
UNIT_SPREAD = 12**-0.5


@ranges.checked
def neural_ucb(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  candidates: str = "dirichlet",
  num_candidates: Count | None = None,
  exploration: NonNegative = 0.03,
  regularisation: Positive = 0.01,
  learning_rate: NonNegative = 3e-3,
  hidden: tuple[Count, ...] = (64, 64),
  num_steps: Count = 2,
  replay_capacity: Count = 4096,
) -> Bandit:
  """NeuralUCB on last-layer features: a round's work is small and stays so.

  Args:
    num_experts: E.
    num_tasks: V.
    candidates: "dirichlet" (fresh uniform draws) or "tree" (leaves of a tree
      that grows where it is played), whose best is played, or "ascent", which
      climbs the score from fresh draws.
    num_candidates: how many; None for 20, 128 or 32.
    exploration: gamma, factor of the width in units of the rewards' spread.
    regularisation: lambda, Z_0 = lambda I.
    learning_rate: of the network's Adam.
    hidden: widths of the network's hidden layers.
    num_steps: gradient steps a round.
    replay_capacity: the last slots that are trained on.

  Raises:
    ValueError: if a choice is not known or a number out of range.
  """
  learner = Learner(
    ADAM, num_experts, num_tasks, tuple(hidden), num_steps, replay_capacity
  )
  numbers = Numbers(exploration, regularisation, make_rates(learning_rate))
  return model_bandit(
    neural_model(learner, numbers),
    *named_candidates(candidates, num_experts, num_candidates),
  )


@ranges.checked
def neural_ucb_theory(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  num_candidates: Count = 20,
  exploration: NonNegative = 0.1,
  regularisation: Positive = 0.1,
  learning_rate: NonNegative = 1.0,
  hidden: tuple[Count, ...] | None = None,
  num_steps: Count = 20,
  replay_capacity: Count = 2048,
  noise: NonNegative = 0.05,
  norm: NonNegative = 1.0,
  failure: Inner = 0.1,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """NeuralUCB as in Algorithms 1 and 2 of the paper.

  sqrt(m) f without biases, the symmetric start with f = 0, the whole Z, J steps
  on all slots with a pull of lambda to the start, and the width times

    gamma_t = nu sqrt(log(det Z_t / det lambda I) - 2 log delta)
              + sqrt(lambda) S.

  [R] That is the paper's gamma_t in the limit of infinite width and of training
  to the end: its other terms have constants that it leaves open, and with
  constants of order 1 those in m^-1/6 exceed every reward by orders of
  magnitude until m is astronomical. [R] too: every default, among them a tenth
  of gamma_t, the whole of which explores for thousands of slots, and the ring,
  where the paper keeps all slots.

  Args:
    num_experts: E.
    num_tasks: V.
    num_candidates: fresh uniform draws a round, the best of which is played.
    exploration: factor of gamma_t.
    regularisation: lambda, Z_0 = lambda I.
    learning_rate: eta (m lambda + t m), with eta the size of a step.
    hidden: widths of the network's hidden layers, all even: Z has as many rows
      as the network has parameters; None for one layer of 32, and of 16 with
      more than 64 experts [R].
    num_steps: J, gradient steps a round.
    replay_capacity: the last slots that are trained on.
    noise: nu, the sub-Gaussian scale of the rewards' noise.
    norm: S, a bound on the reward function's norm.
    failure: delta, the probability that the bound fails, in (0, 1).
    reward_range: (lowest, highest) reward, which become the 0 and 1 of the
      theorem; None for a mean of 0 and the spread of rewards even over [0, 1],
      as far as seen [R].

  Raises:
    ValueError: if a number is out of range, or the state would be too large.
  """
  if hidden is None:
    hidden = (32,) if num_experts <= 64 else (16,)
  if any(width % 2 for width in hidden):
    raise ValueError(f"hidden must hold even widths, got hidden={hidden}")
  learner = Learner(
    GRADIENT_DESCENT,
    num_experts,
    num_tasks,
    tuple(hidden),
    num_steps,
    replay_capacity,
    ntk=True,
    initialise=symmetric_init,
    reward_spread=UNIT_SPREAD if reward_range is None else None,
  )
  numbers = Numbers(
    exploration,
    regularisation,
    make_rates(learning_rate, ridge=regularisation),
    Theorem(noise, norm, failure),
  )
  bandit = model_bandit(
    neural_model(learner, numbers, confidence="full"),
    *named_candidates("dirichlet", num_experts, num_candidates),
    reward_range=reward_range,
  )
  return check_state_size(
    bandit,
    "choose a narrower network, got "
    f"hidden={hidden}, num_experts={num_experts}, num_tasks={num_tasks}",
  )


@ranges.checked
def neural_ucb_practical(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  num_candidates: Count = 20,
  exploration: NonNegative = 1.0,
  regularisation: Positive = 0.001,
  learning_rate: NonNegative = 0.01,
  hidden: tuple[Count, ...] = (64,),
  num_steps: Count = 1000,
  stop_loss: Annotated[float, Range(0, ends="[]")] = 1e-3,
  dense_rounds: Whole = 2000,
  sparse_every: Count = 100,
  replay_capacity: Count = 4096,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """NeuralUCB as in its authors' public code.

  Diagonal Z without 1/m, bonus sqrt(lambda nu g^2 / Z), SGD on single samples
  with weight decay lambda. [R]: one network with V outputs, lambda, nu, and
  the ring of slots.

  Args:
    num_experts: E.
    num_tasks: V.
    num_candidates: fresh uniform draws a round, the best of which is played.
    exploration: sqrt(nu).
    regularisation: lambda, Z_0 = lambda I.
    learning_rate: of SGD.
    hidden: widths of the network's hidden layers.
    num_steps: most single-sample steps a round.
    stop_loss: mean squared error of an epoch at which a round's training ends.
    dense_rounds: slots up to which every one is trained after,
    sparse_every: and afterwards one of so many.
    replay_capacity: the last slots that are trained on.
    reward_range: (lowest, highest) reward, see `neural_ucb_theory`; the code
      takes rewards as they come, which (0, 1) does.

  Raises:
    ValueError: if a number is out of range.
  """
  learner = Learner(
    SGD,
    num_experts,
    num_tasks,
    tuple(hidden),
    num_steps,
    replay_capacity,
    dense_rounds=dense_rounds,
    sparse_every=sparse_every,
    initialise=fan_in_init,
    reward_spread=UNIT_SPREAD if reward_range is None else None,
  )
  # g and Z without 1/m: the model's Z is theirs over m, from lambda / m on.
  numbers = Numbers(
    times_root_lambda(exploration, regularisation),
    regularisation / learner.hidden[-1],
    make_rates(learning_rate, ridge=regularisation, stop_loss=stop_loss),
  )
  return model_bandit(
    neural_model(learner, numbers, confidence="diagonal"),
    *named_candidates("dirichlet", num_experts, num_candidates),
    reward_range=reward_range,
  )
