"""NeuralTS: Thompson sampling from a network's linearised posterior.

Zhang, Zhou, Li, Gu, "Neural Thompson Sampling", ICLR 2021, Algorithm 1: the
reward of candidate x is drawn from N(f(x), nu^2 sigma^2(x)) with sigma^2 =
lambda g' Z^-1 g / m, for each candidate anew, and the largest draw is played.

[R] An ascent needs a draw that is smooth in x: then one Gaussian sample w of
N(0, Z^-1) in the space of the features is taken a round, by default those of
the last layer, and f(x) + nu sqrt(lambda / m) g'w is climbed. At every x that
has the distribution above; draws at two candidates are then not independent.
"""

from typing import Any

from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.neural import neural_config
from tanbr_jax.bandits.neural.neural_bandit import neural_bandit
from tanbr_jax.bandits.neural.neural_model import neural_model


def neural_ts(
  *,
  num_experts: int,
  num_tasks: int,
  preset: str = "default",
  **overrides: Any,
) -> Bandit:
  """NeuralTS: plays the candidate of the highest sampled reward.

  Args:
    num_experts: E.
    num_tasks: V.
    preset: of `neural_config.PRESETS`; its `factor` is "lambda" here, so that
      `exploration` is nu.
    **overrides: fields of `neural_config.NeuralConfig` that replace the
      preset's.

  Returns:
    A `Bandit`; see `neural_bandit` for its decisions' aux, in which
    exploration_bonus is what the sample added to the mean.

  Raises:
    ValueError: if the preset or a field is not known, or a value out of range.
  """
  overrides = {"factor": "lambda", **overrides}
  if preset == "default":
    overrides = {"exploration": 0.3, **overrides}
  config = neural_config.resolve(preset, overrides)
  climbs = config.candidates == "ascent"
  shapes = neural_config.structure(
    config, num_experts, num_tasks, thompson=climbs
  )
  return neural_bandit(
    neural_model(shapes, neural_config.numbers(config)),
    neural_config.source(config, num_experts),
    neural_config.rule(config, "bonus" if climbs else "normal"),
  )
