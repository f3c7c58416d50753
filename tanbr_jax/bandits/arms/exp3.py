"""Exp3: the adversarial bandit on a fixed set of merges, without context.

Auer, Cesa-Bianchi, Freund and Schapire, "The nonstochastic multiarmed bandit
problem", SIAM J. Computing 2002, section 3. It competes with the best single
arm whatever the rewards do, and does not look at the task mix. Letters: N
arms, V tasks, E experts.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.arms.fixed_arms import make_arms
from tanbr_jax.bandits.arms.slot_reward import (
  RewardRange,
  make_range,
  rescale,
  slot_reward,
  widen,
)
from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  begin,
)
from tanbr_jax.bandits.wrappers.standardised import standardised
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  NonNegative,
  Positive,
  Real,
)


class Exp3State(NamedTuple):
  """State of `exp3`.

  Attributes:
    log_weights: [N] float32, the logarithms of the paper's w_i, up to a
      constant that keeps the largest at 0.
    bounds: range of the slots' rewards.
    num_rounds: [] int32, slots in which something was seen.
  """

  log_weights: jax.Array
  bounds: RewardRange
  num_rounds: jax.Array


class Rate(NamedTuple):
  """Numbers of the exploration rate, see `exp3`.

  Attributes:
    scale: [] c.
    horizon: [] T, or 0.
  """

  scale: jax.Array
  horizon: jax.Array


def exploration_rate(rate: Rate, state: Exp3State) -> jax.Array:
  """Returns gamma of the round that comes, see `exp3`."""
  num_arms = state.log_weights.shape[0]
  rounds = jnp.maximum(state.num_rounds.astype(jnp.float32) + 1, rate.horizon)
  least = jnp.sqrt(num_arms * math.log(num_arms) / ((math.e - 1) * rounds))
  return jnp.minimum(1.0, rate.scale * least)


def probabilities(log_weights: chex.Array, gamma: chex.Numeric) -> jax.Array:
  """Returns p_i = (1 - gamma) w_i / sum_j w_j + gamma / N, [N]."""
  share = gamma / log_weights.shape[0]
  return (1 - gamma) * jax.nn.softmax(log_weights) + share


def _select(arms, rate: Rate, key, state: Exp3State, context) -> Decision:
  del context
  gamma = exploration_rate(rate, state)
  chances = probabilities(state.log_weights, gamma)
  arm = jax.random.categorical(key, jnp.log(chances)).astype(jnp.int32)
  aux = {"arm": arm, "probability": chances[arm], "epsilon": gamma}
  return Decision(arms[arm], aux)


def _update(
  rate: Rate, key, state: Exp3State, context: Context, decision, feedback
) -> Exp3State:
  del key
  slot = slot_reward(context.task_mix, feedback)
  bounds = widen(state.bounds, slot.value[None], slot.seen[None])
  # What the arm gave, over the probability that it was asked: unbiased for
  # every arm, played or not.
  estimate = rescale(bounds, slot.value) / decision.aux["probability"]
  gamma = exploration_rate(rate, state)
  growth = gamma * estimate / state.log_weights.shape[0]
  log_weights = state.log_weights.at[decision.aux["arm"]].add(
    jnp.where(slot.seen, growth, 0.0)
  )
  return Exp3State(
    log_weights - jnp.max(log_weights),
    bounds,
    state.num_rounds + slot.seen.astype(jnp.int32),
  )


@ranges.checked
def exp3(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  arms: chex.Array | None = None,
  exploration: Positive = 1.0,
  horizon: NonNegative = 0.0,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """Exp3 (Auer et al. 2002) with explicit importance weights.

  gamma = min(1, c sqrt(N log N / ((e - 1) max(t, T)))): with c = 1 and a known
  number T of rounds this is the constant of the paper's corollary 3.2; with
  T = 0 it falls with the round t [R], in place of the restarts of Exp3.1.

  A slot's gain is psi . r over the tasks that were seen, rescaled to [0, 1] by
  its range. A range that grows with what was seen [R] changes the meaning of
  early gains; give `reward_range` where it is known.

  Args:
    num_experts: E.
    num_tasks: V (only checked: every constructor takes both).
    arms: [A, E] static merges besides the vertices and the uniform one.
    exploration: c > 0.
    horizon: T, or 0.
    reward_range: (lowest, highest) reward of a slot, what lies outside is
      clipped; None for what was seen so far.

  Raises:
    ValueError: if an argument is out of range.
  """
  arms = make_arms(num_experts, arms)
  start = Exp3State(
    jnp.zeros(arms.shape[0], jnp.float32),
    make_range(None if reward_range is None else (0.0, 1.0)),
    jnp.int32(0),
  )
  rate = Rate(jnp.float32(exploration), jnp.float32(horizon))
  bandit = Bandit(
    Partial(begin, start), Partial(_select, arms, rate), Partial(_update, rate)
  )
  return standardised(bandit, reward_range=reward_range)
