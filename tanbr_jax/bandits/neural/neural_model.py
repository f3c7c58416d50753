"""A neural reward model with a confidence width from gradient features.

f(x; theta) [V] is learnt by a `Learner`; the bonus of psi . f(x) is a factor
times sqrt(g' Z^-1 g / m) (Zhou, Li and Gu 2020, Algorithm 1), with g the
gradient features of the chosen confidence form, Z = lambda I + sum g g' / m
and m the last hidden width. Letters: V tasks, E experts, P features.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.neural.neural_learner import Learner, LearnerState, Rates
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import NonNegative, Positive, check_fields
from tanbr_jax.regression import confidence as confidences
from tanbr_jax.regression import square_root
from tanbr_jax.regression.features import mixed_gradient_features

CONFIDENCES = ("last_layer", "diagonal", "full")


class Theorem(NamedTuple):
  """The constants of gamma_t; see `neural_ucb_theory`."""

  noise: chex.Numeric  # nu
  norm: chex.Numeric  # S
  failure: chex.Numeric  # delta


class Numbers(NamedTuple):
  """Hyper-parameters that are traced: a new value does not compile again."""

  exploration: NonNegative  # gamma, in units of the network's rewards
  regularisation: Positive  # lambda
  rates: Rates
  theorem: Theorem | None = None  # gamma_t multiplies gamma if there is one


class NeuralState(NamedTuple):
  """State of the neural reward model."""

  learner: LearnerState
  confidence: Any  # of the confidence form
  log_det: jax.Array  # [] log(det Z / det lambda I), kept for the theorem only


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Structure:
  """The learner and one of CONFIDENCES, which fix the compiled program."""

  learner: Learner
  confidence: str

  def features(self, params: Any, task_mix, weights) -> jax.Array:
    """Returns g / sqrt(m), [P]."""
    network = self.learner.network
    if self.confidence == "last_layer":
      features = network.apply(params, weights, features=True)
    else:
      features = mixed_gradient_features(
        network.apply, params, weights, task_mix
      )
    return features / jnp.sqrt(jnp.float32(self.learner.hidden[-1]))

  def form(self, numbers: Numbers, params: Any) -> confidences.Confidence:
    """Returns the confidence form of the features."""
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    if self.confidence == "last_layer":
      size = self.learner.network.num_features
    diagonal = self.confidence == "diagonal"
    form = confidences.diagonal if diagonal else confidences.full
    return form(num_features=size, regularisation=numbers.regularisation)


def _factor(numbers: Numbers, state: NeuralState) -> jax.Array:
  """Returns what the width is multiplied by, gamma or gamma gamma_t."""
  if numbers.theorem is None:
    return numbers.exploration
  noise, norm, failure = numbers.theorem
  gamma_t = noise * jnp.sqrt(state.log_det - 2 * jnp.log(failure))
  gamma_t = gamma_t + jnp.sqrt(numbers.regularisation) * norm
  return numbers.exploration * gamma_t


def _init(structure: Structure, numbers: Numbers, key) -> NeuralState:
  learner = structure.learner.init(key)
  confidence = structure.form(numbers, learner.params).init()
  return NeuralState(learner, confidence, jnp.float32(0))


def _estimate(structure: Structure, numbers, key, state, task_mix):
  del key
  learner = state.learner
  form = structure.form(numbers, learner.params)
  size = structure.learner.units(learner.replay)[1]
  factor = size * _factor(numbers, state)

  def estimate(weights):
    features = structure.features(learner.params, task_mix, weights)
    square = form.quadratic_form(state.confidence, features)
    bonus = factor * jnp.sqrt(jnp.maximum(square, 1e-12))
    return structure.learner.predict(learner, task_mix, weights), bonus

  return estimate


def _update(structure, numbers, key, state, task_mix, weights, feedback):
  learner, confidence, log_det = state
  learnt = jnp.any(reward_model.observed(feedback)[1] > 0)
  features = structure.features(learner.params, task_mix, weights)
  if numbers.theorem is not None:
    # log det(Z + g g') - log det Z.
    added = jnp.log1p(square_root.quadratic_form(confidence, features))
    log_det = log_det + jnp.where(learnt, added, 0.0)
  update = structure.form(numbers, learner.params).update
  confidence = update(confidence, features, learnt.astype(jnp.float32))
  learner = structure.learner.update(
    numbers.rates, key, learner, weights, feedback
  )
  return NeuralState(learner, confidence, log_det)


def neural_model(
  learner: Learner, numbers: Numbers, *, confidence: str = "last_layer"
) -> RewardModel:
  """Returns the neural reward model.

  Args:
    learner: the network, its start and its training.
    numbers: traced hyper-parameters.
    confidence: one of CONFIDENCES; "full" where there is a theorem.

  Raises:
    ValueError: if a choice is not known or a number out of range.
  """
  check_choice("confidence", confidence, CONFIDENCES)
  check_fields(Numbers, numbers._asdict())
  bound = Structure(learner, confidence), jax.tree.map(jnp.float32, numbers)
  return RewardModel(
    *(Partial(part, *bound) for part in (_init, _estimate, _update))
  )


def times_root_lambda(exploration: float, regularisation: float) -> jax.Array:
  """Returns gamma sqrt(lambda), for a bonus gamma sqrt(lambda g' Z^-1 g)."""
  return jnp.float32(exploration) * jnp.sqrt(jnp.float32(regularisation))
