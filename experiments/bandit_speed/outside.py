"""Times of outside implementations, to decide and to learn.

An outside player meets our environment round by round. Only its own two calls
are timed: neither the environment nor the way between the two counts, whereas
our own rates include the environment.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bandit_speed.settings import SpeedSettings
from tanbr_jax.environments import Environment
from third_party import pyxab
from third_party.neural_ucb_torch import TorchNeuralUCB

NUM_CANDIDATES = 20
# Ours -> the class of PyXAB beside it. Both are HOO's truncated form.
PYXAB = {"hoo": "T_HOO", "hct": "HCT"}


class Player(NamedTuple):
  """An outside implementation.

  Attributes:
    choose: `choose(t, task_mix) -> choice`, timed.
    to_weights: `to_weights(choice) -> [E]`, not timed.
    learn: `learn(t, task_mix, weights, task_reward)`, timed.
  """

  choose: Callable[..., Any]
  to_weights: Callable[[Any], np.ndarray]
  learn: Callable[..., None]


class Stream:
  """Our environment, served round by round."""

  def __init__(self, environment: Environment, *, seed: int = 0):
    """Compiles the environment and makes its first state."""
    init, self._context, self._step = map(jax.jit, environment)
    self._key = jax.random.key(seed)
    self._state = init(jax.random.fold_in(self._key, 0))
    self._round = 0

  def play(
    self,
    player: Player,
    num_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
  ) -> float:
    """Plays some rounds more and returns the player's own seconds."""
    seconds = 0.0
    for _ in range(num_rounds):
      t = self._round
      mix = np.asarray(self._context(self._state).task_mix)
      begin = clock()
      choice = player.choose(t, mix)
      seconds += clock() - begin
      weights = np.asarray(player.to_weights(choice), np.float32)
      key = jax.random.fold_in(self._key, t + 1)
      feedback, _, self._state = self._step(
        key, self._state, jnp.asarray(weights)
      )
      reward = np.asarray(feedback.task_reward)
      begin = clock()
      player.learn(t, mix, weights, reward)
      seconds += clock() - begin
      self._round += 1
    return seconds


def pyxab_player(name: str, num_experts: int, **options: Any) -> Player:
  """An algorithm of PyXAB, which sees psi . r alone.

  Raises:
    ImportError: PyXAB is not installed.
  """
  domain = [[0.0, 1.0] for _ in range(num_experts - 1)]
  algorithm = pyxab.algorithm(name)(domain=domain, **options)
  return Player(
    choose=lambda t, mix: algorithm.pull(t + 1),
    to_weights=pyxab.to_simplex,
    learn=lambda t, mix, weights, reward: algorithm.receive_reward(
      t + 1, float(mix @ reward)
    ),
  )


def pyxab_seconds(
  name: str,
  environment: Environment,
  settings: SpeedSettings,
  **options: Any,
) -> list[float]:
  """Seconds of each chunk of an algorithm of PyXAB, one seed."""
  player = pyxab_player(name, settings.num_experts, **options)
  stream, seconds = Stream(environment), []
  for _ in range(settings.num_rounds // settings.chunk_size):
    if len(seconds) >= 3 and sum(seconds) > settings.pyxab_max_seconds:
      break
    seconds.append(stream.play(player, settings.chunk_size))
  return seconds


class _Torch(TorchNeuralUCB):
  """A NeuralUCB that can learn a history without training on it."""

  trains = False

  def _train(self, order: np.ndarray) -> None:
    if self.trains:
      super()._train(order)


def torch_seconds(
  environment: Environment, settings: SpeedSettings
) -> list[float]:
  """Seconds of each chunk of the PyTorch NeuralUCB, one seed.

  Every timed round trains for exactly `max_steps` single samples: no loss is
  low enough to stop.

  Raises:
    ImportError: PyTorch is not installed.
  """
  sizes = settings.torch
  agent = _Torch(
    num_experts=settings.num_experts,
    num_tasks=settings.num_tasks,
    max_steps=sizes.max_steps,
    stop_loss=0.0,
    dense_rounds=sizes.history + sizes.num_rounds,
  )
  rng = np.random.default_rng(0)

  def choose(t: int, mix: np.ndarray) -> np.ndarray:
    points = rng.dirichlet(np.ones(settings.num_experts), NUM_CANDIDATES)
    return points[agent.select(points, mix)[0]]

  player = Player(
    choose=choose,
    to_weights=lambda weights: weights,
    learn=lambda t, mix, weights, reward: agent.update(weights, reward),
  )
  stream = Stream(environment)
  stream.play(player, sizes.history)
  agent.trains = True
  chunks = sizes.num_rounds // sizes.chunk_size
  return [stream.play(player, sizes.chunk_size) for _ in range(chunks)]
