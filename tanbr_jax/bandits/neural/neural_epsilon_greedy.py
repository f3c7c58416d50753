"""Epsilon-greedy on a reward network: no confidence is needed.

In slot t (from 0) a uniformly drawn candidate is played with probability
min(1, epsilon (1 + t)^-decay), otherwise the best one by the network. The
falling rate is that of Auer, Cesa-Bianchi and Fischer, "Finite-time analysis
of the multiarmed bandit problem", Machine Learning 2002, sec. 3, with decay 1;
[R] ours defaults to 1/2, as a network learns more slowly than a mean.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.neural import neural_config
from tanbr_jax.bandits.neural.neural_bandit import neural_bandit
from tanbr_jax.bandits.neural.neural_model import neural_model
from tanbr_jax.bandits.neural.neural_structure import NeuralState


def _epsilon(first, decay, state: NeuralState) -> jax.Array:
  slots = state.num_slots.astype(jnp.float32)
  return jnp.minimum(first * (1 + slots) ** -decay, 1.0)


def neural_epsilon_greedy(
  *,
  num_experts: int,
  num_tasks: int,
  epsilon: float = 0.5,
  decay: float = 0.5,
  preset: str = "default",
  **overrides: Any,
) -> Bandit:
  """Plays the network's best candidate, sometimes a random one.

  Args:
    num_experts: E.
    num_tasks: V.
    epsilon: probability of a random candidate in the first slot.
    decay: exponent with which it falls; 0 keeps it.
    preset: of `neural_config.PRESETS`: the network and its training.
    **overrides: fields of `neural_config.NeuralConfig` that replace the
      preset's; those of the width do nothing.

  Returns:
    A `Bandit`; see `neural_bandit` for its decisions' aux.

  Raises:
    ValueError: if the preset or a field is not known, or a value out of range.
  """
  if not (0 <= epsilon <= 1 and decay >= 0):
    raise ValueError(
      "epsilon must be in [0, 1] and decay not negative, got "
      f"epsilon={epsilon}, decay={decay}"
    )
  config = neural_config.resolve(preset, overrides)
  shapes = neural_config.structure(config, num_experts, num_tasks)
  return neural_bandit(
    neural_model(shapes, neural_config.numbers(config)),
    neural_config.source(config, num_experts),
    neural_config.rule(config, "mean"),
    epsilon=Partial(_epsilon, jnp.float32(epsilon), jnp.float32(decay)),
  )
