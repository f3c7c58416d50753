"""A neural reward model with a confidence width from gradient features.

f(x; theta) [V] is trained on squared error (`neural_training`); the width of
psi . f(x) is a factor times sqrt(g' Z^-1 g / m) (Zhou, Li and Gu 2020,
Algorithm 1), with g the gradient features of the chosen confidence form and m
the hidden width. Letters: V tasks, E experts, P features, R replayed slots.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.neural import (
  neural_theorem,
  neural_training,
  reward_network,
)
from tanbr_jax.bandits.neural.neural_structure import (
  NeuralState,
  Numbers,
  Structure,
)
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.regression import confidence as confidences
from tanbr_jax.regression import features as gradient_features
from tanbr_jax.regression import square_root

_INITIALISATIONS = {
  "zero_output": reward_network.init,
  "symmetric": reward_network.symmetric_init,
  "fan_in": reward_network.fan_in_init,
}


def _features(structure, params, task_mix, weights) -> jax.Array:
  """Returns the features [P] of psi . f(x), divided by sqrt(m) if asked."""
  if structure.confidence == "last_layer":
    features = structure.network.apply(params, weights, method="features")
  else:
    features = gradient_features.mixed_gradient_features(
      structure.network.apply, params, weights, task_mix
    )
  if not structure.divide_by_width:
    return features
  return features / jnp.sqrt(jnp.float32(structure.width))


def _confidence(structure, regularisation, params) -> confidences.Confidence:
  if structure.confidence == "last_layer":
    size = structure.network.num_features
  else:
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
  diagonal = structure.confidence == "diagonal"
  form = confidences.diagonal if diagonal else confidences.full
  return form(num_features=size, regularisation=regularisation)


def _sample(structure, key, confidence) -> jax.Array:
  """Returns a sample [P] of N(0, Z^-1)."""
  draws = jax.random.normal(key, confidence.high.shape[:1])
  if structure.confidence == "diagonal":
    return draws * jax.lax.rsqrt(confidence.high + confidence.low)
  return square_root.colour(confidence, draws)


def _added_log_det(structure, confidence, features) -> jax.Array:
  """Returns log det(Z + g g') - log det Z (of the diagonal, if that is Z)."""
  if structure.confidence == "diagonal":
    return jnp.sum(jnp.log1p(features**2 / (confidence.high + confidence.low)))
  return jnp.log1p(square_root.quadratic_form(confidence, features))


def _factor(structure, numbers: Numbers, state: NeuralState) -> jax.Array:
  """Returns what the width is multiplied by."""
  if structure.factor == "constant":
    return numbers.exploration
  if structure.factor == "lambda":
    return numbers.exploration * jnp.sqrt(numbers.regularisation)
  slots = state.num_slots.astype(jnp.float32)
  step = neural_training.step_size(numbers, jnp.maximum(slots, 1.0))
  return numbers.exploration * neural_theorem.confidence_radius(
    numbers.theorem,
    num_slots=slots,
    log_det=state.log_det,
    regularisation=numbers.regularisation,
    contraction=jnp.minimum(step * numbers.regularisation, 1.0),
    width=structure.width,
    depth=len(structure.hidden) + 1,
    num_steps=structure.num_steps,
  )


def init_state(
  structure: Structure, numbers: Numbers, key: jax.Array
) -> NeuralState:
  """Returns the state before the first slot; `key` is consumed."""
  params = _INITIALISATIONS[structure.initialisation](
    key, structure.network, num_experts=structure.num_experts
  )
  capacity, tasks = structure.replay_capacity, structure.num_tasks
  return NeuralState(
    params=params,
    # A copy: two leaves that share one buffer could not both be donated.
    initial_params=jax.tree.map(jnp.copy, params),
    opt_state=neural_training.init(structure, params),
    confidence=_confidence(structure, numbers.regularisation, params).init(),
    log_det=jnp.float32(0),
    scale=reward_model.init_scale(),
    weights=jnp.zeros((capacity, structure.num_experts), jnp.float32),
    rewards=jnp.zeros((capacity, tasks), jnp.float32),
    counts=jnp.zeros((capacity, tasks), jnp.float32),
    num_slots=jnp.int32(0),
  )


def _estimate(structure, numbers, key, state: NeuralState, task_mix):
  form = _confidence(structure, numbers.regularisation, state.params)
  middle, size = jnp.float32(0), jnp.float32(1)
  if structure.normalise_rewards:
    middle, size = state.scale.mean, reward_model.spread(state.scale)
  factor = size * _factor(structure, numbers, state)
  # One draw for all weights: a smooth function whose value at each of them has
  # NeuralTS's distribution (Zhang et al. 2021, Algorithm 1), but not its
  # independence between candidates [R].
  sample = _sample(structure, key, state.confidence)

  def estimate(weights):
    rewards = structure.network.apply(state.params, weights)
    features = _features(structure, state.params, task_mix, weights)
    if structure.thompson:
      bonus = jnp.dot(sample, features)
    else:
      form_value = form.quadratic_form(state.confidence, features)
      bonus = jnp.sqrt(jnp.maximum(form_value, 1e-12))
    return middle + size * jnp.dot(task_mix, rewards), factor * bonus

  return estimate


def _update(structure, numbers, key, state, task_mix, weights, feedback):
  reward, count = reward_model.observed(feedback)
  any_seen = jnp.any(count > 0)
  form = _confidence(structure, numbers.regularisation, state.params)
  features = _features(structure, state.params, task_mix, weights)
  if structure.factor == "theorem":
    added = _added_log_det(structure, state.confidence, features)
    state = state._replace(
      log_det=state.log_det + jnp.where(any_seen, added, 0.0)
    )
  state = state._replace(
    confidence=form.update(
      state.confidence, features, any_seen.astype(jnp.float32)
    ),
  )
  state = remember(structure, state, weights, reward, count)
  return neural_training.train(structure, numbers, key, state, any_seen)


def remember(
  structure: Structure,
  state: NeuralState,
  weights: jax.Array,
  reward: jax.Array,
  count: jax.Array,
) -> NeuralState:
  """Writes a slot into the ring, unless no task was seen in it.

  Args:
    structure: sizes.
    state: of the model.
    weights: [E] that were played.
    reward: [V] and
    count: [V], both from `reward_model.observed`.
  """
  any_seen = jnp.any(count > 0)
  row = jnp.where(
    any_seen,
    state.num_slots % structure.replay_capacity,
    structure.replay_capacity,
  )
  return state._replace(
    scale=reward_model.update_scale(state.scale, reward, count),
    weights=state.weights.at[row].set(weights, mode="drop"),
    rewards=state.rewards.at[row].set(reward, mode="drop"),
    counts=state.counts.at[row].set(count, mode="drop"),
    num_slots=state.num_slots + any_seen.astype(jnp.int32),
  )


def neural_model(structure: Structure, numbers: Numbers) -> RewardModel:
  """Returns the neural reward model.

  Args:
    structure: what fixes the program.
    numbers: traced hyper-parameters.

  Raises:
    ValueError: if a choice is not known or a size is below 1.
  """
  structure.check()
  numbers = jax.tree.map(jnp.float32, numbers)
  return RewardModel(
    *(
      Partial(part, structure, numbers)
      for part in (init_state, _estimate, _update)
    )
  )
