"""A neural reward model with a confidence width from gradient features.

f(x; theta) [V] is trained by minibatch steps on squared error with a ridge to
the initial parameters; the width of psi . f(x) is
gamma sqrt(g' Z^-1 g / m) (Zhou, Li and Gu 2020, Algorithm 1), with g the
gradient features of the chosen confidence form and m the hidden width.
Letters: V tasks, E experts, P features, R replayed slots.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.reward_model import RewardModel, RewardScale
from tanbr_jax.networks import confidence as confidences
from tanbr_jax.networks import features as gradient_features
from tanbr_jax.networks.reward_network import RewardNetwork

CONFIDENCE_FORMS = ("last_layer", "diagonal", "full")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Structure:
  """What fixes the program: shapes and choices, not numbers.

  Attributes:
    num_experts: E.
    num_tasks: V.
    hidden: widths of the hidden layers.
    confidence: one of CONFIDENCE_FORMS.
    num_steps: J, minibatch steps of Adam a round.
    batch_size: slots in a minibatch.
    replay_capacity: R, how many of the last slots are replayed.
    normalise_rewards: train on rewards less their mean over their spread.
  """

  num_experts: int
  num_tasks: int
  hidden: tuple[int, ...] = (64, 64)
  confidence: str = "last_layer"
  num_steps: int = 2
  batch_size: int = 64
  replay_capacity: int = 4096
  normalise_rewards: bool = True

  @property
  def network(self) -> RewardNetwork:
    """The reward network."""
    return RewardNetwork(num_tasks=self.num_tasks, hidden=self.hidden)


class Numbers(NamedTuple):
  """Hyper-parameters that are traced: a new value does not compile again.

  Attributes:
    exploration: gamma, the factor of the width, in units of reward spread.
    regularisation: lambda, Z_0 = lambda I.
    ridge: weight of the pull to the initial parameters.
    learning_rate: of Adam.
  """

  exploration: chex.Numeric
  regularisation: chex.Numeric
  ridge: chex.Numeric
  learning_rate: chex.Numeric


class NeuralState(NamedTuple):
  """State of the neural reward model.

  Attributes:
    params: of the network.
    initial_params: theta_0, what the ridge pulls to.
    opt_state: of Adam.
    confidence: state of the confidence form.
    scale: running scale of the rewards.
    weights: [R, E] played weights, a ring.
    rewards: [R, V] raw rewards.
    counts: [R, V] requests; 0 where a task was not observed.
    num_slots: [] int32, slots learnt from so far.
  """

  params: Any
  initial_params: Any
  opt_state: Any
  confidence: Any
  scale: RewardScale
  weights: jax.Array
  rewards: jax.Array
  counts: jax.Array
  num_slots: jax.Array


def _features(structure, params, task_mix, weights) -> jax.Array:
  """Returns the features [P] of psi . f(x), divided by sqrt(m)."""
  if structure.confidence == "last_layer":
    features = structure.network.apply(params, weights, method="features")
  else:
    features = gradient_features.mixed_gradient_features(
      structure.network.apply, params, weights, task_mix
    )
  return features / jnp.sqrt(jnp.float32(structure.hidden[-1]))


def _confidence(structure, regularisation, params) -> confidences.Confidence:
  if structure.confidence == "last_layer":
    size = structure.hidden[-1] + 1
  else:
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
  diagonal = structure.confidence == "diagonal"
  form = confidences.diagonal if diagonal else confidences.full
  return form(num_features=size, regularisation=regularisation)


def _init(structure, numbers, key) -> NeuralState:
  example = jnp.zeros(structure.num_experts, jnp.float32)
  params = structure.network.init(key, example)
  capacity, tasks = structure.replay_capacity, structure.num_tasks
  return NeuralState(
    params=params,
    # A copy: two leaves that share one buffer could not both be donated.
    initial_params=jax.tree.map(jnp.copy, params),
    opt_state=optax.scale_by_adam().init(params),
    confidence=_confidence(structure, numbers.regularisation, params).init(),
    scale=reward_model.init_scale(),
    weights=jnp.zeros((capacity, structure.num_experts), jnp.float32),
    rewards=jnp.zeros((capacity, tasks), jnp.float32),
    counts=jnp.zeros((capacity, tasks), jnp.float32),
    num_slots=jnp.int32(0),
  )


def _estimate(structure, numbers, key, state: NeuralState, task_mix):
  del key
  form = _confidence(structure, numbers.regularisation, state.params)
  size = (
    reward_model.spread(state.scale) if structure.normalise_rewards else 1.0
  )

  def estimate(weights):
    rewards = structure.network.apply(state.params, weights)
    features = _features(structure, state.params, task_mix, weights)
    width = jnp.sqrt(
      jnp.maximum(form.quadratic_form(state.confidence, features), 1e-12)
    )
    return size * jnp.dot(task_mix, rewards), size * numbers.exploration * width

  return estimate


def _loss(structure, numbers, params, state: NeuralState, batch) -> jax.Array:
  weights, rewards, counts = batch
  predictions = jax.vmap(structure.network.apply, (None, 0))(params, weights)
  seen = (counts > 0).astype(jnp.float32)
  squared = jnp.sum(seen * (predictions - rewards) ** 2)
  error = squared / jnp.maximum(jnp.sum(seen), 1.0)
  distance = optax.tree.norm(
    optax.tree.sub(params, state.initial_params), squared=True
  )
  # The ridge of the whole history over its length, as the minibatch error is
  # a mean: NeuralUCB's objective divided by the number of slots.
  share = numbers.ridge / jnp.maximum(state.num_slots, 1).astype(jnp.float32)
  return 0.5 * error + 0.5 * share * distance


def _train(structure, numbers, key, state: NeuralState) -> NeuralState:
  filled = jnp.minimum(state.num_slots, structure.replay_capacity)
  mean, size = jnp.float32(0), jnp.float32(1)
  if structure.normalise_rewards:
    mean, size = state.scale.mean, reward_model.spread(state.scale)
  adam = optax.scale_by_adam()

  def step(carry, step_key):
    params, opt_state = carry
    rows = jax.random.randint(
      step_key, (structure.batch_size,), 0, jnp.maximum(filled, 1)
    )
    batch = (
      state.weights[rows],
      (state.rewards[rows] - mean) / size,
      state.counts[rows],
    )
    gradient = jax.grad(
      lambda params: _loss(structure, numbers, params, state, batch)
    )(params)
    # optax raises a float to an integer power, which strict promotion (a
    # user's setting, and that of our tests) would refuse.
    with jax.numpy_dtype_promotion("standard"):
      updates, opt_state = adam.update(gradient, opt_state, params)
    updates = optax.tree.scale(-numbers.learning_rate, updates)
    return (optax.apply_updates(params, updates), opt_state), None

  (params, opt_state), _ = jax.lax.scan(
    step,
    (state.params, state.opt_state),
    jax.random.split(key, structure.num_steps),
  )
  # Nothing was ever observed: stay at the initial parameters.
  learns = state.num_slots > 0
  params, opt_state = optax.tree.where(
    learns, (params, opt_state), (state.params, state.opt_state)
  )
  return state._replace(params=params, opt_state=opt_state)


def _update(structure, numbers, key, state, task_mix, weights, feedback):
  reward, count = reward_model.observed(feedback)
  any_seen = jnp.any(count > 0)
  form = _confidence(structure, numbers.regularisation, state.params)
  features = _features(structure, state.params, task_mix, weights)
  row = jnp.where(
    any_seen,
    state.num_slots % structure.replay_capacity,
    structure.replay_capacity,
  )
  state = state._replace(
    confidence=form.update(
      state.confidence, features, any_seen.astype(jnp.float32)
    ),
    scale=reward_model.update_scale(state.scale, reward, count),
    weights=state.weights.at[row].set(weights, mode="drop"),
    rewards=state.rewards.at[row].set(reward, mode="drop"),
    counts=state.counts.at[row].set(count, mode="drop"),
    num_slots=state.num_slots + any_seen.astype(jnp.int32),
  )
  return _train(structure, numbers, key, state)


def neural_model(structure: Structure, numbers: Numbers) -> RewardModel:
  """Returns the neural reward model.

  Args:
    structure: what fixes the program.
    numbers: traced hyper-parameters.

  Raises:
    ValueError: if the confidence form is not known or a size is below 1.
  """
  if structure.confidence not in CONFIDENCE_FORMS:
    raise ValueError(
      f"confidence must be one of {CONFIDENCE_FORMS}, got "
      f"confidence={structure.confidence!r}"
    )
  for name in ("num_steps", "batch_size", "replay_capacity"):
    if getattr(structure, name) < 1:
      raise ValueError(
        f"{name} must be at least 1, got {name}={getattr(structure, name)}"
      )
  numbers = Numbers(*(jnp.float32(value) for value in numbers))
  return RewardModel(
    *(Partial(part, structure, numbers) for part in (_init, _estimate, _update))
  )
