"""NeuralUCB: a network's reward plus the width of its gradient features.

Zhou, Li, Gu, "Neural Contextual Bandits with UCB-based Exploration", ICML
2020; with fresh random candidates the baseline Nucb of arXiv 2509.19781.
Three presets (`neural_config.PRESETS`): "default", our small schedule;
"theory", the paper's algorithm; "practical", that of the authors' public code.
"""

from typing import Any

from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.neural import neural_config
from tanbr_jax.bandits.neural.neural_bandit import neural_bandit
from tanbr_jax.bandits.neural.neural_model import neural_model


def neural_ucb(
  *,
  num_experts: int,
  num_tasks: int,
  preset: str = "default",
  **overrides: Any,
) -> Bandit:
  """NeuralUCB: plays the candidate of the highest mean plus width.

  Args:
    num_experts: E.
    num_tasks: V.
    preset: "default", "theory" or "practical".
    **overrides: fields of `neural_config.NeuralConfig` that replace the
      preset's.

  Returns:
    A `Bandit`; see `neural_bandit` for its decisions' aux.

  Raises:
    ValueError: if the preset or a field is not known, or a value out of range.
  """
  config = neural_config.resolve(preset, overrides)
  shapes = neural_config.structure(config, num_experts, num_tasks)
  return neural_bandit(
    neural_model(shapes, neural_config.numbers(config)),
    neural_config.source(config, num_experts),
    neural_config.rule(config, "bonus"),
  )
