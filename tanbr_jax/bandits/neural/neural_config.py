"""Every hyper-parameter of the neural bandits, and presets of them."""

import dataclasses
from typing import Any

from tanbr_jax.bandits.base import check_at_least
from tanbr_jax.bandits.candidates import Source, make_source
from tanbr_jax.bandits.neural.neural_bandit import Rule
from tanbr_jax.bandits.neural.neural_structure import (
  Numbers,
  Structure,
  Theorem,
)
from tanbr_jax.simplex.ascent import Ascent


@dataclasses.dataclass(frozen=True)
class NeuralConfig:
  """Every hyper-parameter of a neural bandit; see PRESETS.

  Attributes:
    candidates: "dirichlet", "grid", "tree" or "ascent", see `candidates`.
    num_candidates: N; None for `candidates.DEFAULT_SIZES`.
    rho: "tree": how fast cells shrink with depth, in (0, 1).
    split_scale: "tree": visits that split the root.
    num_starts: "ascent": candidates from which the score is climbed.
    num_ascent_steps: "ascent": steps from each of them.
    exploration: gamma, factor of the width; nu of NeuralTS, and sqrt(nu) of
      NeuralUCB's public code.
    regularisation: lambda, Z_0 = lambda I.
    ridge: pull of the network to its initial parameters (with "sgd" to zero);
      None for lambda.
    learning_rate: of the training.
    stop_loss: "sgd": mean squared error of an epoch at which training stops.
    hidden: widths of the hidden layers.
    confidence: "last_layer", "diagonal" or "full".
    num_steps: J, gradient steps a round; with "sgd" the most of them.
    batch_size: "adam": slots in one step.
    replay_capacity: the last slots that are trained on.
    normalise_rewards: train on rewards less their mean over their spread.
    parametrisation: "standard", or "ntk" for sqrt(m) f without biases.
    initialisation: "zero_output", "symmetric" or "fan_in".
    divide_by_width: whether g g' and g' Z^-1 g are divided by m.
    factor: of the width: "constant" for gamma, "lambda" for gamma
      sqrt(lambda), "theorem" for gamma gamma_t.
    training: "adam", "sgd" or "gradient_descent", see `neural_training`.
    dense_rounds: "sgd": slots up to which every one is trained after,
    sparse_every: and afterwards one of so many.
    noise: nu of gamma_t, the scale of the rewards' noise.
    norm: S of gamma_t.
    failure: delta of gamma_t.
    c1: C_1 of gamma_t, and so on; see `neural_theorem`.
    c2: C_2.
    c3: C_3.
    c4: C_4.
  """

  candidates: str = "dirichlet"
  num_candidates: int | None = None
  rho: float = 0.9
  split_scale: float = 1.0
  num_starts: int = 4
  num_ascent_steps: int = 12
  exploration: float = 0.03
  regularisation: float = 0.01
  ridge: float | None = 0.0
  learning_rate: float = 3e-3
  stop_loss: float = 1e-3
  hidden: tuple[int, ...] = (64, 64)
  confidence: str = "last_layer"
  num_steps: int = 2
  batch_size: int = 64
  replay_capacity: int = 4096
  normalise_rewards: bool = True
  parametrisation: str = "standard"
  initialisation: str = "zero_output"
  divide_by_width: bool = True
  factor: str = "constant"
  training: str = "adam"
  dense_rounds: int = 2000
  sparse_every: int = 100
  noise: float = 0.05
  norm: float = 1.0
  failure: float = 0.1
  c1: float = 0.0
  c2: float = 0.0
  c3: float = 0.0
  c4: float = 0.0


PRESETS = {
  # The schedule that we would use: a round's work is small and does not grow.
  "default": NeuralConfig(),
  # Zhou, Li and Gu 2020, Algorithms 1 and 2: sqrt(m) f without biases, the
  # symmetric start with f = 0, the whole Z with 1/m, gamma_t, J steps on all
  # slots. [R]: m, J, lambda, nu, S, delta, the step size's constant, the
  # constants of gamma_t, a tenth of it (the whole explores for thousands of
  # slots), and a ring of the last 2,048 slots.
  "theory": NeuralConfig(
    exploration=0.1,
    regularisation=0.1,
    ridge=None,
    learning_rate=1.0,
    hidden=(32,),
    confidence="full",
    num_steps=20,
    replay_capacity=2048,
    normalise_rewards=False,
    parametrisation="ntk",
    initialisation="symmetric",
    factor="theorem",
    training="gradient_descent",
  ),
  # The algorithm of the authors' public code: diagonal Z without 1/m, bonus
  # sqrt(lambda nu g^2 / Z), SGD on single samples with weight decay lambda, at
  # most 1,000 steps a round, and after round 2,000 in one of 100 rounds. [R]:
  # one network with V outputs, lambda, nu, and a ring of the last 4,096 slots.
  "practical": NeuralConfig(
    exploration=1.0,
    regularisation=0.001,
    ridge=None,
    learning_rate=0.01,
    hidden=(64,),
    confidence="diagonal",
    num_steps=1000,
    normalise_rewards=False,
    initialisation="fan_in",
    divide_by_width=False,
    factor="lambda",
    training="sgd",
  ),
}

_SOURCE = ("num_candidates", "rho", "split_scale")


def resolve(preset: str, overrides: dict[str, Any]) -> NeuralConfig:
  """Returns a preset with some fields replaced.

  Args:
    preset: one of PRESETS.
    overrides: fields of `NeuralConfig`.

  Raises:
    ValueError: the preset or a field is not known, or a number out of range.
  """
  if preset not in PRESETS:
    raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset=}")
  known = {field.name for field in dataclasses.fields(NeuralConfig)}
  if unknown := sorted(set(overrides) - known):
    raise ValueError(f"unknown fields {unknown}, known are {sorted(known)}")
  config = dataclasses.replace(PRESETS[preset], **overrides)
  for name in ("exploration", "learning_rate", "noise", "norm"):
    if not getattr(config, name) >= 0:
      raise ValueError(
        f"{name} must not be negative, got {name}={getattr(config, name)}"
      )
  if config.ridge is not None and not config.ridge >= 0:
    raise ValueError(f"ridge must not be negative, got ridge={config.ridge}")
  if not config.regularisation > 0:
    raise ValueError(
      "regularisation must be positive, got "
      f"regularisation={config.regularisation}"
    )
  if not 0 < config.failure < 1:
    raise ValueError(f"failure must be in (0, 1), got failure={config.failure}")
  if config.num_starts < 1 or config.num_ascent_steps < 1:
    raise ValueError(
      "num_starts and num_ascent_steps must be at least 1, got num_starts="
      f"{config.num_starts}, num_ascent_steps={config.num_ascent_steps}"
    )
  return config


def structure(
  config: NeuralConfig, num_experts: int, num_tasks: int, **fields: Any
) -> Structure:
  """Returns the config's structure, with more fields of `Structure`.

  Raises:
    ValueError: if a choice is not known or a size is below 1.
  """
  check_at_least("num_tasks", num_tasks, 1)
  shared = {field.name for field in dataclasses.fields(Structure)}
  values = {k: v for k, v in vars(config).items() if k in shared}
  values["hidden"] = tuple(config.hidden)
  made = Structure(
    num_experts=num_experts, num_tasks=num_tasks, **{**values, **fields}
  )
  made.check()
  return made


def numbers(config: NeuralConfig) -> Numbers:
  """Returns the config's traced hyper-parameters."""
  ridge = config.regularisation if config.ridge is None else config.ridge
  return Numbers(
    config.exploration,
    config.regularisation,
    ridge,
    config.learning_rate,
    config.stop_loss,
    Theorem(*(getattr(config, name) for name in Theorem._fields)),
  )


def source(config: NeuralConfig, num_experts: int) -> Source:
  """Returns the config's source of candidates."""
  options = {name: getattr(config, name) for name in _SOURCE}
  return make_source(config.candidates, num_experts=num_experts, **options)


def rule(config: NeuralConfig, score: str) -> Rule:
  """Returns how a candidate is picked by `score`, see `neural_bandit.Rule`."""
  if config.candidates != "ascent":
    return Rule(score)
  climb = Ascent(
    num_starts=config.num_starts, num_steps=config.num_ascent_steps
  )
  return Rule(score, climb)
