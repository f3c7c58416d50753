"""A bandit whose statistics fade by a factor a slot.

Discounted UCB (Kocsis and Szepesvari, "Discounted UCB", 2nd PASCAL Challenges
Workshop 2006) for counts and sums, D-LinUCB (Russac, Vernade and Cappe,
"Weighted linear bandits for non-stationary environments", NeurIPS 2019) for
Gram matrices. [R] Here as a wrapper: `forget` knows how the statistics of each
type of state fade. Letters: P features.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.arms.exp3 import Exp3State
from tanbr_jax.bandits.arms.fixed_arms import ArmStatistics
from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  as_pytree,
)
from tanbr_jax.bandits.linear.linear_model import LinearState
from tanbr_jax.bandits.reward_model import RewardScale
from tanbr_jax.bandits.wrappers.standardised import StandardisedState
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Chance
from tanbr_jax.regression.confidence import DiagonalState
from tanbr_jax.regression.ridge import RidgeState
from tanbr_jax.regression.square_root import SquareRoot

# [R] What is never seen again would grow without end: from here on, a factor
# 1000 in standard deviation, a matrix fades no more.
LARGEST_ROOT = 1e3


@functools.singledispatch
def forget(state: Any, factor: chex.Numeric) -> Any:
  """Returns the state with its statistics worth `factor` of what they were.

  Means and weights stay, what they rest on fades. A NamedTuple with a field
  `model` fades in that field; what else it holds (a tree, the weights played
  last) stays. For other types: `forget.register`.

  Args:
    state: of a bandit or of a part of one.
    factor: in (0, 1].

  Raises:
    ValueError: if there is no rule for the type of the state.
  """
  if "model" in getattr(state, "_fields", ()):
    return state._replace(model=forget(state.model, factor))
  raise ValueError(
    "discounted needs a state that it knows how to forget, got "
    f"{type(state).__name__}"
  )


@forget.register
def _(state: StandardisedState, factor) -> StandardisedState:
  return state._replace(bandit=forget(state.bandit, factor))


@forget.register
def _(state: SquareRoot, factor) -> SquareRoot:
  # Z <- factor Z, hence S <- S / sqrt(factor).
  size = jnp.max(jnp.abs(state.high), axis=(-2, -1), keepdims=True)
  growth = jnp.where(size < LARGEST_ROOT, jax.lax.rsqrt(factor), 1.0)
  return SquareRoot(high=growth * state.high, low=growth * state.low)


@forget.register
def _(state: DiagonalState, factor) -> DiagonalState:
  return DiagonalState(factor * state.high, factor * state.low)


@forget.register
def _(state: RidgeState, factor) -> RidgeState:
  return RidgeState(
    forget(state.root, factor), state.weights, state.weights_low
  )


@forget.register
def _(state: LinearState, factor) -> LinearState:
  return state._replace(
    posterior=forget(state.posterior, factor),
    num_observations=factor * state.num_observations,
  )


@forget.register
def _(state: RewardScale, factor) -> RewardScale:
  return state._replace(count=factor * state.count)


@forget.register
def _(state: ArmStatistics, factor) -> ArmStatistics:
  # Visits stay: they say that an arm was tried, and number the rounds.
  return state._replace(
    count=factor * state.count,
    squares=factor * state.squares,
    freedom=factor * state.freedom,
    scale=forget(state.scale, factor),
  )


@forget.register
def _(state: Exp3State, factor) -> Exp3State:
  return state._replace(log_weights=factor * state.log_weights)


def _update(
  bandit: Bandit,
  factor,
  key,
  state,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> Any:
  faded = forget(state, factor)
  return bandit.update(key, faded, context, decision, feedback)


@ranges.checked
def discounted(bandit: Bandit, *, factor: Chance) -> Bandit:
  """Wraps a bandit so that a slot counts `factor` ** (its age in slots).

  The prior fades too (D-LinUCB adds it anew each slot): a task or a direction
  that is not seen for long becomes as uncertain as LARGEST_ROOT allows.

  Args:
    bandit: what is wrapped: arms, or a linear model, whatever picks from it.
      First-order learners follow what changes by themselves and have no rule.
    factor: in (0, 1]; about 1 / (1 - factor) slots are remembered.

  Raises:
    ValueError: if the factor is out of range, or `forget` has no rule for the
      bandit's state.
  """
  bandit, factor = as_pytree(bandit), jnp.float32(factor)
  jax.eval_shape(
    lambda key: forget(bandit.init(key), factor), jax.random.key(0)
  )
  return bandit._replace(update=Partial(_update, bandit, factor))
