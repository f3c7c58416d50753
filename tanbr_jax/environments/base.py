"""An environment: three pure functions, the mirror of a bandit.

Letters: V tasks, E experts. Like a `Bandit`, an `Environment` built from
`jax.tree_util.Partial` is a pytree, so that model parameters and text pass
through `jit` as arguments instead of being folded into the program.

Everything random in an environment comes from the keys that it is given,
never from the weights that are played: two bandits that run with the same
seed serve the same requests, so that their rewards can be compared pairwise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from tanbr_jax.bandits.base import Context, Feedback

State = Any


class Outcome(NamedTuple):
  """The truth about a slot, for a reader of the run and not for the bandit.

  Attributes:
    task_mix: [V] float32, the true mix of the slot.
    expected_reward: [] the played weights' reward without noise, psi . h(x).
    realised_reward: [] the reward that the slot really gave, noise included.
    optimal_reward: [] the largest expected reward of any weights, psi . h(x*).
    optimal_weights: [E] weights that reach it.
  """

  task_mix: jax.Array
  expected_reward: jax.Array
  realised_reward: jax.Array
  optimal_reward: jax.Array
  optimal_weights: jax.Array


class Environment(NamedTuple):
  """An environment as three pure functions.

  Attributes:
    init: `init(key) -> state`.
    context: `context(state) -> Context`, what the bandit may see of the slot
      that comes.
    step: `step(key, state, merge_weights [E]) -> (Feedback, Outcome, state)`.
  """

  init: Callable[[jax.Array], State]
  context: Callable[[State], Context]
  step: Callable[[jax.Array, State, jax.Array], tuple[Feedback, Outcome, State]]
