"""Bayesian linear regression of V task rewards that have a part in common.

Task v's reward on features f is

  r_v = f'(w_0 + w_v) + noise of variance s^2 / count_v,
  w_0 ~ N(0, s^2 / Lambda_0),   w_v ~ N(0, s^2 / Lambda_1),

Lambda diagonal. Tasks that share curvature, say, learn it V times as fast as
alone. The posterior is a Kalman filter whose covariance is kept block diagonal:
[R] after each slot the covariances between w_0 and the w_v, and among the w_v,
are dropped (assumed density filtering, Maybeck 1982), and what the w_v share is
moved into w_0. The means and variances of one slot are exact given the slot
before; over many slots the posterior is wider than the exact one, and late
slots weigh somewhat more than early ones.

Lambda is constant within a group of features and is learnt: each slot estimates
every group's prior variance by MacKay's fixed point (Neural Computation 1992),

  sigma^2 = (sum w^2 + a sigma_0^2) / (sum (1 - Lambda A_ii) + a),

with a pseudo-counts of the first guess, and moves ONE feature's Lambda to
s^2 / sigma^2, feature after feature. [R] A change of Lambda_i is one more
observation, of the value 0 on the i-th unit vector, hence costs O(P^2) and
keeps the digits that solving anew from sums of squares would lose. Forgetting
multiplies Z by a factor each slot; the same pseudo-observations then restore
the prior's share of it, so that what is never seen stays at its prior.

As in `square_root`, A = Z^-1 is kept as a root, here A = R'R (the transpose, so
that the product with common features is one matrix-vector product), with what
each addition rounds away. Letters: V tasks, K = V + 1 parts (the last is the
common one), P features.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Chance, Positive, PositiveOrInf
from tanbr_jax.regression.square_root import compensated_add

# Bounds of the prior precision in units of the noise's, and the most that a
# pseudo-observation may take away at once: beyond 1 / A_ii, which is at least
# Lambda_i, the posterior would cease to exist.
_LEAST, _MOST, _MOST_TAKEN = 1e-4, 1e3, 0.5
_LEAST_NOISE = 1e-20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MultitaskState:
  """The posterior and what it has learnt of the prior.

  Attributes:
    high: [K, P, P] float32, R.
    low: [K, P, P] float32, what rounding took from `high`.
    weights: [K, P] float32, posterior means.
    weights_low: [K, P] float32, what rounding took from `weights`.
    precision: [2, P] float32, Lambda_1 and Lambda_0 as they are in Z now.
    noise: [] float32, the estimate of s^2.
    num_observations: [] float32, task rewards seen, as far as remembered.
    num_slots: [] int32, slots in which some task was seen.
  """

  high: jax.Array
  low: jax.Array
  weights: jax.Array
  weights_low: jax.Array
  precision: jax.Array
  noise: jax.Array
  num_observations: jax.Array
  num_slots: jax.Array


class Prior(NamedTuple):
  """The belief before the first slot; numbers are traced.

  Attributes:
    groups: [P, G] float32, one-hot rows: the group of each feature.
    task_precision: [] Lambda_1, in units of 1 / s^2.
    common_precision: [] Lambda_0, in units of 1 / s^2.
    strength: [] a, pseudo-counts of the first guess of a group's variance;
      infinity keeps the first guess.
    forgetting: [] factor of Z each slot, in (0, 1].
  """

  groups: jax.Array
  task_precision: jax.Array
  common_precision: jax.Array
  strength: jax.Array
  forgetting: jax.Array


@ranges.checked
def make_prior(
  groups: np.ndarray,
  *,
  task_precision: Positive = 0.1,
  common_precision: PositiveOrInf = 0.03,
  strength: PositiveOrInf = 2.0,
  forgetting: Chance = 1.0,
) -> Prior:
  """Checks and packs a prior.

  Args:
    groups: [P] integers from 0 on, the group of each feature.
    task_precision: Lambda_1.
    common_precision: Lambda_0; infinity for tasks with nothing in common.
    strength: a; infinity for a prior that is not learnt.
    forgetting: in (0, 1].

  Raises:
    ValueError: a number is out of range.
  """
  one_hot = np.eye(int(np.max(groups)) + 1)[groups]
  return Prior(
    jnp.asarray(one_hot, jnp.float32),
    jnp.float32(task_precision),
    jnp.float32(common_precision),
    jnp.float32(strength),
    jnp.float32(forgetting),
  )


def init(prior: Prior, num_tasks: int) -> MultitaskState:
  """The posterior before any slot."""
  size = prior.groups.shape[0]
  precision = jnp.stack([prior.task_precision, prior.common_precision])
  roots = (
    lax.rsqrt(precision)[:, None, None] * jnp.eye(size, dtype=jnp.float32)[None]
  )
  high = jnp.concatenate([jnp.tile(roots[:1], (num_tasks, 1, 1)), roots[1:]])
  zeros = jnp.zeros((num_tasks + 1, size), jnp.float32)
  return MultitaskState(
    high=high,
    low=jnp.zeros_like(high),
    weights=zeros,
    weights_low=zeros,
    precision=jnp.tile(precision[:, None], (1, size)),
    noise=jnp.float32(1e-3),
    num_observations=jnp.float32(0),
    num_slots=jnp.int32(0),
  )


def parts_of_mix(task_mix: jax.Array) -> jax.Array:
  """Returns [K], how much each part counts in psi . w: the mix [V], and 1."""
  return jnp.concatenate([task_mix, jnp.sum(task_mix, keepdims=True)])


def mean(state: MultitaskState, task_mix: jax.Array) -> jax.Array:
  """Returns the posterior mean [P] of the mix's coefficients."""
  return _dot(parts_of_mix(task_mix), state.weights + state.weights_low)


def sample_deviation(
  key: chex.PRNGKey, state: MultitaskState, task_mix: jax.Array
) -> jax.Array:
  """Returns a draw [P] of the mix's coefficients less their mean."""
  parts, size = state.weights.shape
  draws = jax.random.normal(key, (parts, size), jnp.float32)
  draws = draws * parts_of_mix(task_mix)[:, None]
  flat = _dot(draws.reshape(-1), state.high.reshape(parts * size, size))
  return jnp.sqrt(state.noise) * flat


def variance(
  state: MultitaskState, features: jax.Array, task_mix: jax.Array
) -> jax.Array:
  """Returns the posterior variance [] of the mix's mean reward."""
  forms = jnp.sum(_whiten(state.high, features) ** 2, axis=1)
  return state.noise * _dot(parts_of_mix(task_mix) ** 2, forms)


def update(
  prior: Prior,
  state: MultitaskState,
  features: jax.Array,
  task_reward: jax.Array,
  task_count: jax.Array,
) -> MultitaskState:
  """Learns from one slot.

  Args:
    prior: of `make_prior`.
    state: of `init` or `update`.
    features: [P] of what was played.
    task_reward: [V], finite.
    task_count: [V] float32, observations behind each reward; 0 where there is
      none. A slot of zeros returns the same bits.
  """
  # What the slot says of every part.
  grown = lax.rsqrt(prior.forgetting)
  whitened = grown * _whiten(state.high, features)
  slot = _slot(state, whitened, features, task_reward, task_count)
  # The change of the prior, at the feature whose turn it is.
  index = state.num_slots % features.shape[0]
  precision = prior.forgetting * state.precision
  changes = _changes(prior, state, precision, index)

  def move(part):
    return _move(*part, grown=grown, index=index)

  num_tasks = task_reward.shape[0]
  steps = _Steps(
    weight=slot.weight,
    surprise=slot.surprise,
    change=jnp.append(jnp.broadcast_to(changes[0], (num_tasks,)), changes[1]),
  )
  # Both enter; on a CPU one part after the other, whose matrices fit the
  # first-level cache. Then what the parts share is moved.
  arrays = (state.high, state.low, state.weights, state.weights_low)
  high, low, *weights = lax.platform_dependent(
    (arrays, whitened, steps),
    cuda=jax.vmap(move),
    default=lambda parts: lax.map(move, parts),
  )
  precision = precision.at[:, index].add(changes)
  weights, weights_low = _rebalance(*weights, precision)
  # The noise, averaged over all observations; nothing without any.
  total = prior.forgetting * state.num_observations + slot.num_seen
  rate = slot.num_seen / jnp.maximum(total, 1)
  new = MultitaskState(
    high=high,
    low=low,
    weights=weights,
    weights_low=weights_low,
    precision=precision,
    noise=state.noise + rate * (slot.noise - state.noise),
    num_observations=total,
    num_slots=state.num_slots + 1,
  )
  any_seen = slot.num_seen > 0
  return jax.tree.map(lambda a, b: jnp.where(any_seen, a, b), new, state)


def update_mixture(
  state: MultitaskState,
  features: jax.Array,
  parts: jax.Array,
  values: jax.Array,
  noise: jax.Array,
) -> tuple[MultitaskState, jax.Array]:
  """Learns values of the whole mixture, as a derivative of its reward is.

  Value i is sum_k c_k w_k'f_i plus noise; one enters after the other. As in
  `update`, the covariances between parts that a value causes are dropped. The
  prior and the noise of the rewards stay as they are.

  Args:
    state: of `init` or `update`.
    features: [M, P] f_i.
    parts: [K] c, see `parts_of_mix`.
    values: [M].
    noise: [] variance of the values' noise, positive.

  Returns:
    The state, and the estimate of the noise's variance from these values' own
    innovations: the mean of e^2 noise / (variance of e).
  """
  ratio = noise / jnp.maximum(state.noise, _LEAST_NOISE)

  def learn(carry, row):
    high, low, weights, weights_low = carry
    direction_features, value = row
    whitened = _whiten(high, direction_features)
    forms = jnp.sum(whitened**2, axis=1)
    spread = _dot(parts**2, forms) + ratio
    error = value - _dot(parts, _dot(weights + weights_low, direction_features))
    # The precision that leaves the same posterior variance: see `_slot`.
    gained = parts**2 / spread
    weight = gained / jnp.maximum(1 - gained * forms, 1e-6)
    directions = jnp.einsum(
      "kp,kpq->kq", whitened, high, precision=lax.Precision.HIGHEST
    )  # A f
    weights, weights_low = compensated_add(
      weights, weights_low, (parts * error / spread)[:, None] * directions
    )
    square = 1 + weight * forms
    scale = weight / (square + jnp.sqrt(square))
    change = -(scale[:, None] * whitened)[:, :, None] * directions[:, None, :]
    high, low = compensated_add(high, low, change)
    return (high, low, weights, weights_low), error**2 * ratio / spread

  arrays = (state.high, state.low, state.weights, state.weights_low)
  arrays, squares = lax.scan(learn, arrays, (features, values))
  high, low, weights, weights_low = arrays
  new = dataclasses.replace(
    state, high=high, low=low, weights=weights, weights_low=weights_low
  )
  return new, jnp.mean(squares)


class _Slot(NamedTuple):
  weight: jax.Array  # [K] by which f f' enters each part's Z
  surprise: jax.Array  # [K] by which each part's weights move along A f
  noise: jax.Array  # [] this slot's estimate of s^2
  num_seen: jax.Array  # [] float32


class _Steps(NamedTuple):
  weight: jax.Array  # [K]
  surprise: jax.Array  # [K]
  change: jax.Array  # [K] of Lambda at the feature whose turn it is


def _slot(state, whitened, features, task_reward, task_count) -> _Slot:
  """Solves the slot's innovation equations.

  In units of s^2 the innovations e have covariance diag(d) + q_0 11' with
  d_v = 1 / count_v + q_v and q_k = f'A_k f, inverted by Sherman-Morrison.
  """
  forms = jnp.sum(whitened**2, axis=1)
  task_forms, common_form = forms[:-1], forms[-1]
  predicted = _dot(state.weights + state.weights_low, features)
  error = task_reward - predicted[:-1] - predicted[-1]
  seen = task_count > 0
  inverse = 1 / (1 / jnp.maximum(task_count, 1) + task_forms)
  inverse = jnp.where(seen, inverse, 0)
  total = jnp.sum(inverse)
  shared = common_form / (1 + common_form * total)
  solved = inverse * (error - shared * jnp.dot(inverse, error))
  # The precision that a part gains is what leaves the same posterior variance:
  # g = w / (1 + w q) with g the diagonal of the inverse covariance.
  gained = inverse - inverse**2 * shared
  # 1 - g q is at least 1 / (1 + count q): positive but for rounding.
  weight = gained / jnp.maximum(1 - gained * task_forms, 1e-6)
  num_seen = jnp.sum(seen, dtype=jnp.float32)
  return _Slot(
    weight=jnp.append(weight, total),
    surprise=jnp.append(solved, jnp.sum(solved)),
    noise=jnp.dot(error, solved) / jnp.maximum(num_seen, 1),
    num_seen=num_seen,
  )


def _changes(prior, state, precision, index) -> jax.Array:
  """Returns [2], what is to be added to both Lambdas at feature `index`."""
  weights = state.weights + state.weights_low
  left = 1 - _expand(state.precision, state) * jnp.sum(state.high**2, axis=1)
  first = jnp.stack([prior.task_precision, prior.common_precision])
  group = prior.groups[index]

  def estimate(values):  # [K, P] -> [2]: sums over tasks, and the common part
    sums = _dot(values, prior.groups @ group)
    return jnp.stack([jnp.sum(sums[:-1]), sums[-1]])

  # sigma^2 / s^2; with infinite strength it is 1 / Lambda of the first guess.
  share = 1 / (1 + prior.strength)
  # Rewards that are all alike so far leave no noise to compare with.
  squares = estimate(weights**2) / jnp.maximum(state.noise, _LEAST_NOISE)
  ratio = (share * squares + (1 - share) / first) / (
    share * estimate(left) + (1 - share)
  )
  learnt = jnp.clip(1 / jnp.maximum(ratio, 1e-30), _LEAST, _MOST)
  target = jnp.where(jnp.isinf(prior.strength), first, learnt)
  current = precision[:, index]
  change = jnp.maximum(target - current, -_MOST_TAKEN * current)
  return jnp.where(jnp.isinf(current), 0, change)


def _expand(pair: jax.Array, state: MultitaskState) -> jax.Array:
  """[2, P] of task and common part -> [K, P]."""
  num_tasks = state.weights.shape[0] - 1
  return jnp.concatenate([jnp.tile(pair[:1], (num_tasks, 1)), pair[1:]])


def _move(arrays, whitened, steps: _Steps, *, grown, index):
  """One part's posterior after the slot and the change of its prior.

  Both are Potter updates (see `square_root`), written in one pass over R.
  """
  high, low, weights, weights_low = arrays
  direction = grown * _dot(whitened, high)  # A f
  square = 1 + steps.weight * jnp.sum(whitened**2)
  scale = steps.weight / (square + jnp.sqrt(square))
  weights, weights_low = compensated_add(
    weights, weights_low, steps.surprise * direction
  )
  # R e_i after the first update, and A e_i.
  column = grown * high[:, index] - scale * direction[index] * whitened
  turned = grown * _dot(column, high)
  turned = turned - scale * jnp.dot(column, whitened) * direction
  square = 1 + steps.change * jnp.sum(column**2)
  prior_scale = steps.change / (square + jnp.sqrt(square))
  current = weights[index] + weights_low[index]
  weights, weights_low = compensated_add(
    weights, weights_low, -steps.change / square * current * turned
  )
  change = (
    (grown - 1) * high
    - (scale * whitened)[:, None] * direction[None, :]
    - (prior_scale * column)[:, None] * turned[None, :]
  )
  high, low = compensated_add(high, grown * low, change)
  return high, low, weights, weights_low


def _rebalance(weights, weights_low, precision):
  """Moves what the tasks' own parts share into the common part.

  Adding c to w_0 and taking it from every w_v changes no prediction; this c
  makes Lambda_0 w_0^2 + Lambda_1 sum w_v^2 least. Without it the split that
  the first slots happened to make would stay, as the filter has dropped the
  covariance of the parts.
  """
  exact = weights + weights_low
  ratio = precision[0] / precision[1]
  num_tasks = weights.shape[0] - 1
  shift = ratio * jnp.sum(exact[:-1], axis=0) - exact[-1]
  shift = shift / (1 + num_tasks * ratio)
  signs = jnp.append(jnp.full(num_tasks, -1.0, jnp.float32), 1)
  return compensated_add(weights, weights_low, signs[:, None] * shift[None, :])


def _whiten(high: jax.Array, features: jax.Array) -> jax.Array:
  """Returns R f, [K, P]."""
  parts, size, _ = high.shape
  return _dot(high.reshape(parts * size, size), features).reshape(parts, size)


def _dot(a: jax.Array, b: jax.Array) -> Any:
  # Accelerators round the factors of a float32 product to 10 bits by default.
  return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
