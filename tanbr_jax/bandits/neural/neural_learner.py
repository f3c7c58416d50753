"""A network that learns the tasks' rewards from a ring of the last slots.

Letters: V tasks, E experts, R replayed slots.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.base import Feedback, check_at_least, check_sizes
from tanbr_jax.bandits.neural import reward_network
from tanbr_jax.bandits.neural.reward_network import RewardNetwork
from tanbr_jax.bandits.reward_model import RewardScale
from tanbr_jax.checks.ranges import NonNegative, Range, check_fields
from tanbr_jax.simplex.varying import alike

# Slots that `fold_slots` takes at once; a turn of a loop costs a GPU more than
# what it computes.
_BLOCK, _BLOCK_ON_GPU = 128, 2048


class Replay(NamedTuple):
  """The last slots that showed a reward, a ring."""

  weights: jax.Array  # [R, E] as played
  rewards: jax.Array  # [R, V] raw
  counts: jax.Array  # [R, V] requests, 0 where a task was not observed
  num_slots: jax.Array  # [] int32, slots learnt from so far
  scale: RewardScale  # of all rewards so far, see `Learner.standardise`

  @property
  def num_filled(self) -> jax.Array:
    """Returns how many rows hold a slot, [] int32."""
    return jnp.minimum(self.num_slots, self.weights.shape[0])


class LearnerState(NamedTuple):
  """State of a learning network."""

  params: Any
  initial_params: Any  # theta_0, what the ridge pulls to
  opt_state: Any
  replay: Replay


class Rates(NamedTuple):
  """Numbers of the training, traced; made by `make_rates`."""

  learning_rate: NonNegative
  ridge: NonNegative  # weight of the pull to theta_0; of weight decay with SGD
  stop_loss: Annotated[
    float, Range(0, ends="[]")
  ]  # mean squared error of an epoch that ends SGD


def make_rates(
  learning_rate: float, ridge: float = 0.0, stop_loss: float = 0.0
) -> Rates:
  """Returns the training's numbers; a negative one is a ValueError."""
  numbers = Rates(learning_rate, ridge, stop_loss)
  check_fields(Rates, numbers._asdict())
  return Rates(*map(jnp.float32, numbers))


class Training(NamedTuple):
  """A schedule of training; see `neural_training`.

  Attributes:
    init: `init(params) -> opt_state`.
    train: `train(learner, rates, key, state, learnt) -> state`, after a slot
      that is in the ring already if it showed anything (`learnt`, [] bool).
  """

  init: Callable[[Any], Any]
  train: Callable[..., LearnerState]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Learner:
  """A network, its start and its training, which fix the compiled program."""

  training: Training  # ADAM, SGD or GRADIENT_DESCENT of `neural_training`
  num_experts: int
  num_tasks: int
  hidden: tuple[int, ...]  # widths of the hidden layers, the last one is m
  num_steps: int  # J, gradient steps a round; the most of them with SGD
  replay_capacity: int  # R
  batch_size: int = 64  # ADAM: slots in a step
  dense_rounds: int = 0  # SGD: slots up to which every one is trained after,
  sparse_every: int = 1  # and afterwards one of so many
  ntk: bool = False  # whether the network is sqrt(m) f without biases
  initialise: Callable[..., Any] = reward_network.init  # or another one there
  # Spread, about mean 0, that rewards are given; None leaves them as they come.
  reward_spread: float | None = 1.0

  def __post_init__(self) -> None:
    """Checks the sizes; one that is out of range is a ValueError."""
    check_sizes(self.num_experts, self.num_tasks)
    for name in ("num_steps", "replay_capacity", "batch_size", "sparse_every"):
      check_at_least(name, getattr(self, name), 1)
    if not self.hidden or min(self.hidden) < 1:
      raise ValueError(
        f"hidden must hold widths of at least 1, got hidden={self.hidden}"
      )

  @property
  def network(self) -> RewardNetwork:
    """Returns the network."""
    return RewardNetwork(
      num_tasks=self.num_tasks,
      hidden=self.hidden,
      use_bias=not self.ntk,
      output_scale=self.hidden[-1] ** 0.5 if self.ntk else 1.0,
    )

  def init(self, key: jax.Array) -> LearnerState:
    """Returns the state before the first slot; `key` is consumed."""
    params = self.initialise(key, self.network, num_experts=self.num_experts)
    replay = Replay(
      weights=jnp.zeros((self.replay_capacity, self.num_experts), jnp.float32),
      rewards=jnp.zeros((self.replay_capacity, self.num_tasks), jnp.float32),
      counts=jnp.zeros((self.replay_capacity, self.num_tasks), jnp.float32),
      num_slots=jnp.int32(0),
      scale=reward_model.init_scale(),
    )
    # A copy: two leaves that share one buffer could not both be donated.
    start = jax.tree.map(jnp.copy, params)
    return LearnerState(params, start, self.training.init(params), replay)

  def predict(
    self, state: LearnerState, task_mix: jax.Array, weights: jax.Array
  ) -> jax.Array:
    """Returns psi . f(x), [], in the rewards' own units."""
    rewards = self.network.apply(state.params, weights)
    mean, unit = self.units(state.replay)
    return mean + unit * jnp.dot(task_mix, rewards)

  def units(self, replay: Replay) -> tuple[jax.Array, jax.Array]:
    """Returns the reward [] that is 0 to the network, and how much 1 is."""
    if self.reward_spread is None:
      return jnp.float32(0), jnp.float32(1)
    scale = replay.scale
    return scale.mean, reward_model.spread(scale) / self.reward_spread

  def standardise(self, replay: Replay, rewards: jax.Array) -> jax.Array:
    """Returns rewards in the units of the network."""
    mean, unit = self.units(replay)
    return (rewards - mean) / unit

  def remember(
    self, state: LearnerState, weights: jax.Array, feedback: Feedback
  ) -> tuple[LearnerState, jax.Array]:
    """Returns the state with the slot in its ring, and whether it was learnt.

    A slot in which no task was seen is not written.
    """
    reward, count = reward_model.observed(feedback)
    learnt = jnp.any(count > 0)
    replay, capacity = state.replay, self.replay_capacity
    row = jnp.where(learnt, replay.num_slots % capacity, capacity)
    replay = Replay(
      weights=replay.weights.at[row].set(weights, mode="drop"),
      rewards=replay.rewards.at[row].set(reward, mode="drop"),
      counts=replay.counts.at[row].set(count, mode="drop"),
      num_slots=replay.num_slots + learnt.astype(jnp.int32),
      scale=reward_model.update_scale(replay.scale, reward, count),
    )
    return state._replace(replay=replay), learnt

  def update(self, rates, key, state, weights, feedback) -> LearnerState:
    """Returns the state after a slot and its training; `key` is consumed."""
    state, learnt = self.remember(state, weights, feedback)
    return self.training.train(self, rates, key, state, learnt)


def fold_slots(replay: Replay, add: Callable[..., Any], start: Any) -> Any:
  """Folds `add` over blocks of the ring up to its last slot.

  So early rounds are cheap, and a full ring costs always the same.

  Args:
    replay: the ring.
    add: `add(carry, weights [B, E], rewards [B, V], counts [B, V]) -> carry`;
      rows that hold no slot come with count 0.
    start: the first carry.
  """
  capacity = replay.weights.shape[0]
  on_gpu = jax.default_backend() == "gpu"
  block = min(_BLOCK_ON_GPU if on_gpu else _BLOCK, capacity)

  def body(i, carry):
    # The last block of a ring that is no multiple of blocks begins earlier;
    # what it shares with the one before must not count twice.
    first = jnp.minimum(i * block, capacity - block)
    fresh = first + jnp.arange(block, dtype=jnp.int32) >= i * block
    weights, rewards, counts = (
      jax.lax.dynamic_slice_in_dim(array, first, block) for array in replay[:3]
    )
    return add(carry, weights, rewards, jnp.where(fresh[:, None], counts, 0.0))

  num_blocks = (replay.num_filled + block - 1) // block
  return jax.lax.fori_loop(0, num_blocks, body, alike(start, replay))
