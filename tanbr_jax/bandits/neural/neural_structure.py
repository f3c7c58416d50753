"""What a neural reward model is made of: choices, numbers and state.

Letters: V tasks, E experts, R replayed slots, m width of the last hidden layer.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax

from tanbr_jax.bandits.neural.reward_network import RewardNetwork
from tanbr_jax.bandits.reward_model import RewardScale

CHOICES = {
  "confidence": ("last_layer", "diagonal", "full"),
  "parametrisation": ("standard", "ntk"),
  "initialisation": ("zero_output", "symmetric", "fan_in"),
  "factor": ("constant", "lambda", "theorem"),
  "training": ("adam", "sgd", "gradient_descent"),
}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Structure:
  """What fixes the program: shapes and choices, not numbers.

  Attributes:
    num_experts: E.
    num_tasks: V.
    hidden: widths of the hidden layers.
    confidence: "last_layer", "diagonal" or "full".
    num_steps: J, gradient steps a round; with "sgd" the most of them.
    batch_size: slots in a minibatch of "adam".
    replay_capacity: R, how many of the last slots are replayed.
    normalise_rewards: train on rewards less their mean over their spread.
    parametrisation: "standard", or "ntk" for sqrt(m) f without biases.
    initialisation: "zero_output", "symmetric" or "fan_in", see
      `reward_network`.
    divide_by_width: whether g g' and g' Z^-1 g are divided by m.
    factor: what the width sqrt(g' Z^-1 g) is multiplied by: gamma
      ("constant"), gamma sqrt(lambda) ("lambda") or gamma gamma_t ("theorem",
      see `neural_theorem`).
    training: "adam", "sgd" or "gradient_descent", see `neural_training`.
    dense_rounds: "sgd" trains in every slot up to this one,
    sparse_every: and afterwards in one of so many.
    thompson: whether the bonus is a joint sample instead of a width.
  """

  num_experts: int
  num_tasks: int
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
  thompson: bool = False

  @property
  def width(self) -> int:
    """Returns m, that of the last hidden layer."""
    return self.hidden[-1]

  @property
  def network(self) -> RewardNetwork:
    """The reward network."""
    ntk = self.parametrisation == "ntk"
    return RewardNetwork(
      num_tasks=self.num_tasks,
      hidden=self.hidden,
      use_bias=not ntk,
      output_scale=self.width**0.5 if ntk else 1.0,
    )

  def check(self) -> None:
    """Checks the values.

    Raises:
      ValueError: a choice is not known, a size is below 1, or a width is odd
        where the symmetric start needs halves.
    """
    for name, known in CHOICES.items():
      if getattr(self, name) not in known:
        raise ValueError(
          f"{name} must be one of {known}, got {name}={getattr(self, name)!r}"
        )
    sizes = ("num_steps", "batch_size", "replay_capacity", "sparse_every")
    for name in sizes:
      if getattr(self, name) < 1:
        raise ValueError(
          f"{name} must be at least 1, got {name}={getattr(self, name)}"
        )
    if not self.hidden or min(self.hidden) < 1:
      raise ValueError(
        f"hidden must hold widths of at least 1, got hidden={self.hidden}"
      )
    if self.initialisation == "symmetric" and any(w % 2 for w in self.hidden):
      raise ValueError(
        "hidden must be even where initialisation='symmetric', got "
        f"hidden={self.hidden}"
      )


class Theorem(NamedTuple):
  """What gamma_t of NeuralUCB's theorem is made of; see `neural_theorem`.

  Attributes:
    noise: nu, the sub-Gaussian scale of the rewards' noise.
    norm: S, a bound on the reward function's norm.
    failure: delta, the probability that the bound fails.
    c1: C_1,
    c2: C_2 and
    c3: C_3, constants that the theorem leaves open.
    c4: factor of the training's error, which the theorem has as 1.
  """

  noise: chex.Numeric = 0.05
  norm: chex.Numeric = 1.0
  failure: chex.Numeric = 0.1
  c1: chex.Numeric = 0.0
  c2: chex.Numeric = 0.0
  c3: chex.Numeric = 0.0
  c4: chex.Numeric = 0.0


class Numbers(NamedTuple):
  """Hyper-parameters that are traced: a new value does not compile again.

  Attributes:
    exploration: gamma, the factor of the width, in units of reward spread
      where rewards are normalised.
    regularisation: lambda, Z_0 = lambda I.
    ridge: weight of the pull to the initial parameters; to zero with "sgd".
    learning_rate: of the training.
    stop_loss: mean squared error of an epoch that ends "sgd".
    theorem: of gamma_t.
  """

  exploration: chex.Numeric
  regularisation: chex.Numeric
  ridge: chex.Numeric
  learning_rate: chex.Numeric
  stop_loss: chex.Numeric = 1e-3
  theorem: Theorem = Theorem()


class NeuralState(NamedTuple):
  """State of the neural reward model.

  Attributes:
    params: of the network.
    initial_params: theta_0, what the ridge pulls to.
    opt_state: of Adam; () for other trainings.
    confidence: state of the confidence form.
    log_det: [] log(det Z / det(lambda I)), kept for "theorem" only.
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
  log_det: jax.Array
  scale: RewardScale
  weights: jax.Array
  rewards: jax.Array
  counts: jax.Array
  num_slots: jax.Array
