"""A Gaussian process over (weights, mix), exact on a sliding set of slots.

One observation a slot, y = psi . r, with the product kernel of contextual
GP-UCB (Krause and Ong, NeurIPS 2011)

  k((x, psi), (x', psi')) = s^2 exp(-|x - x'|^2 / (2 l^2)) k_psi(psi, psi').

With k_psi = psi . psi' this is the prior of psi-weighted sums of V independent
processes, one a task; a squared exponential k_psi also lets rewards depend on
the mix in other ways. |x - x'| is the distance of tangent coordinates too,
since these are an orthonormal basis.

The last M slots are kept, exactly: until M slots were seen it is the full
posterior, afterwards that of a sliding window (`regression.sliding_factor`,
O(M^2) a slot). Factorising [M, M] anew every slot [R, not done] was measured as
fast up to M = 256, but the solves that go with it lean on a threaded BLAS that
stalls for milliseconds where cores are shared. Letters: V tasks, E experts, M
slots kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.arms.slot_reward import slot_reward
from tanbr_jax.bandits.base import begin, check_at_least, check_sizes
from tanbr_jax.bandits.reward_model import RewardModel, RewardScale
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import NonNegative, Positive, check_fields
from tanbr_jax.regression import sliding_factor

# Added to the diagonal, as a part of the prior variance: float32 factors of
# the kernel of coinciding points need it. It acts as a little more noise.
JITTER = 2.5e-4


class GpNumbers(NamedTuple):
  """Numbers of the process, in units of the rewards' running spread.

  Attributes:
    exploration: beta, factor of the posterior's standard deviation.
    prior_scale: s, the prior standard deviation under a pure mix.
    noise: standard deviation of one request's reward.
    length_scale: l, in units of the weights.
    mix_length_scale: of the squared-exponential k_psi.
  """

  exploration: NonNegative
  prior_scale: Positive
  noise: Positive
  length_scale: Positive
  mix_length_scale: Positive


class GpState(NamedTuple):
  """State of the process; slots are in order, the newest is the last.

  Attributes:
    weights: [M, E] played.
    mixes: [M, V] over the tasks that were seen.
    rewards: [M] psi . r.
    factor: [M, M] inverse Cholesky factor of the rewards' covariance.
    num_slots: [] int32, slots learnt from.
    scale: mean and spread of the tasks' rewards.
  """

  weights: jax.Array
  mixes: jax.Array
  rewards: jax.Array
  factor: jax.Array
  num_slots: jax.Array
  scale: RewardScale


def _linear_kernel(numbers: GpNumbers, mixes, others):
  del numbers
  return mixes @ others.T


def _squared_distances(points, others):
  differences = points[:, None, :] - others[None, :, :]
  return jnp.sum(differences**2, axis=-1)


def _squared_exponential_kernel(numbers: GpNumbers, mixes, others):
  squares = _squared_distances(mixes, others)
  return jnp.exp(-squares / (2 * numbers.mix_length_scale**2))


MIX_KERNELS = {
  "linear": Partial(_linear_kernel),
  "squared_exponential": Partial(_squared_exponential_kernel),
}


def _kernel(mix_kernel, numbers: GpNumbers, one, other):
  """Returns k [A, B] of points, pairs of weights and mixes [A, .], [B, .]."""
  squares = _squared_distances(one[0], other[0])
  closeness = jnp.exp(-squares / (2 * numbers.length_scale**2))
  mixes = mix_kernel(numbers, one[1], other[1])
  return numbers.prior_scale**2 * closeness * mixes


def _filled(state: GpState) -> jax.Array:
  capacity = state.rewards.shape[0]
  return jnp.arange(capacity, dtype=jnp.int32) >= capacity - state.num_slots


def _covariance(mix_kernel, numbers, state: GpState, point) -> jax.Array:
  """Returns k of every slot and the point, [M]; 0 for empty places."""
  points = (state.weights, state.mixes)
  kernel = _kernel(mix_kernel, numbers, points, point)[:, 0]
  return jnp.where(_filled(state), kernel, 0.0)


def _estimate(mix_kernel, numbers: GpNumbers, key, state: GpState, task_mix):
  del key
  spread = reward_model.spread(state.scale)
  centred = jnp.where(_filled(state), state.rewards - state.scale.mean, 0.0)
  white = state.factor @ (centred / spread)

  def estimate(weights):
    point = (weights[None], task_mix[None])
    white_kernel = state.factor @ _covariance(mix_kernel, numbers, state, point)
    prior = _kernel(mix_kernel, numbers, point, point)[0, 0]
    variance = prior - jnp.dot(white_kernel, white_kernel)
    # Rounding may take a variance below zero, and sqrt has no slope at 0.
    deviation = jnp.sqrt(jnp.maximum(variance, 1e-10))
    mean = state.scale.mean + spread * jnp.dot(white_kernel, white)
    return mean, numbers.exploration * spread * deviation

  return estimate


def _append(rows: jax.Array, row: jax.Array) -> jax.Array:
  return jnp.concatenate([rows[1:], row[None]])


def _update(
  mix_kernel, numbers, key, state: GpState, task_mix, weights, feedback
) -> GpState:
  del key
  slot = slot_reward(task_mix, feedback)
  reward, count = reward_model.observed(feedback)
  point = (weights[None], slot.mix[None])
  prior = _kernel(mix_kernel, numbers, point, point)[0, 0]
  noise = slot.variance * numbers.noise**2 + JITTER * numbers.prior_scale**2
  after = state._replace(
    weights=_append(state.weights, weights),
    mixes=_append(state.mixes, slot.mix),
    rewards=_append(state.rewards, slot.value),
    num_slots=state.num_slots + 1,
    scale=reward_model.update_scale(state.scale, reward, count),
  )
  covariance = _covariance(mix_kernel, numbers, after, point)
  factor = sliding_factor.slide(state.factor, covariance, prior + noise, noise)
  after = after._replace(factor=factor)
  return jax.tree.map(
    lambda new, old: jnp.where(slot.seen, new, old), after, state
  )


def gp_model(
  *,
  num_experts: int,
  num_tasks: int,
  capacity: int,
  numbers: GpNumbers,
  mix_kernel: str = "linear",
) -> RewardModel:
  """Returns the Gaussian process as a reward model.

  Rewards are standardised by the running mean and spread of all tasks'
  rewards [R]; the noise of psi . r is noise^2 sum_v psi_v^2 / count_v, tasks'
  noises being independent, and the mix of an observation is renormalised over
  the tasks that were seen.

  Args:
    num_experts: E.
    num_tasks: V.
    capacity: M, the slots that are remembered.
    numbers: of the process.
    mix_kernel: one of MIX_KERNELS.

  Raises:
    ValueError: if an argument is out of range.
  """
  _check(num_experts, num_tasks, capacity, numbers, mix_kernel)
  numbers = GpNumbers(*map(jnp.float32, numbers))
  start = GpState(
    weights=jnp.zeros((capacity, num_experts), jnp.float32),
    mixes=jnp.zeros((capacity, num_tasks), jnp.float32),
    rewards=jnp.zeros(capacity, jnp.float32),
    factor=sliding_factor.init(capacity),
    num_slots=jnp.int32(0),
    scale=reward_model.init_scale(),
  )
  kernel = MIX_KERNELS[mix_kernel]
  return RewardModel(
    Partial(begin, start),
    Partial(_estimate, kernel, numbers),
    Partial(_update, kernel, numbers),
  )


def _check(num_experts, num_tasks, capacity, numbers, mix_kernel) -> None:
  check_sizes(num_experts, num_tasks)
  check_at_least("capacity", capacity, 2)
  check_fields(GpNumbers, numbers._asdict())
  check_choice("mix_kernel", mix_kernel, MIX_KERNELS)
