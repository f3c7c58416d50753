"""Multi-task Thompson sampling: the bandit that we would give a user.

No paper: ours. Every part of it is known (Thompson sampling of a Bayesian
linear model, Agrawal and Goyal 2013; random Fourier features, Rahimi and Recht
2007; evidence maximisation, MacKay 1992); put together [R]:

- the tasks' rewards are linear in quadratic and random Fourier features of the
  weights, with a part that all tasks have in common and one of each task's own;
- the prior scale of every group of features is learnt, so that features that a
  problem does not need stop being explored, and no scale has to be set;
- a draw of the posterior is a smooth function of the weights, which is
  maximised by gradient ascent on the simplex, near the weights played last at
  first and over all of the simplex later.

`tanbr` in its practical preset has the same model and begins the ascent at the
leaves of a tree. Letters: V tasks, E experts, P features.
"""

from typing import Any, NamedTuple

import chex
import numpy as np

from tanbr_jax.bandits.base import Bandit, check_sizes
from tanbr_jax.bandits.linear.model_ascent import model_ascent
from tanbr_jax.bandits.linear.multitask_model import multitask_model
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.regression import multitask_ridge, polynomial

# With more experts there are too many products: P^2 numbers a task are kept.
MOST_EXPERTS_OF_PRODUCTS = 16


class ModelConfig(NamedTuple):
  """Hyper-parameters of the multi-task reward model.

  Attributes:
    exploration: beta, factor of the bonus.
    rule: "thompson" or "ucb".
    num_fourier: random Fourier features.
    length_scale: of the Fourier features, in units of the weights.
    task_precision: first guess of the noise's variance over that of a
      coefficient of a task's own part.
    common_precision: likewise of the common part; infinity for tasks with
      nothing in common.
    prior_strength: pseudo-counts of the first guesses; infinity keeps them.
    forgetting: factor of what was learnt, each slot; below 1 for rewards that
      drift, 1 / (1 - forgetting) slots are then remembered.
  """

  exploration: chex.Numeric = 0.6
  rule: str = "thompson"
  num_fourier: int = 64
  length_scale: chex.Numeric = 0.6
  task_precision: chex.Numeric = 0.1
  common_precision: chex.Numeric = 0.03
  prior_strength: chex.Numeric = 0.5
  forgetting: chex.Numeric = 1.0


def make_model(
  config: ModelConfig, *, num_experts: int, num_tasks: int
) -> RewardModel:
  """Returns the reward model on quadratic and Fourier features.

  Args:
    config: hyper-parameters.
    num_experts: E; above MOST_EXPERTS_OF_PRODUCTS the products are left out.
    num_tasks: V.

  Raises:
    ValueError: if a number is out of range.
  """
  check_sizes(num_experts, num_tasks)
  if config.num_fourier < 0 or not config.length_scale > 0:
    raise ValueError(
      "num_fourier must not be negative and length_scale positive, got "
      f"num_fourier={config.num_fourier}, length_scale={config.length_scale}"
    )
  features = polynomial.fixed_features(
    num_experts,
    quadratic=num_experts <= MOST_EXPERTS_OF_PRODUCTS,
    num_fourier=config.num_fourier,
    length_scale=config.length_scale,
  )
  sizes = (
    1,
    num_experts - 1,
    features.rows.shape[0],
    features.phases.shape[0],
  )
  prior = multitask_ridge.make_prior(
    np.repeat(np.arange(4), sizes),
    task_precision=config.task_precision,
    common_precision=config.common_precision,
    strength=config.prior_strength,
    forgetting=config.forgetting,
  )
  return multitask_model(
    features,
    prior,
    num_tasks=num_tasks,
    exploration=config.exploration,
    rule=config.rule,
  )


def multitask_ts(
  *,
  num_experts: int,
  num_tasks: int,
  num_candidates: int = 32,
  num_starts: int = 4,
  num_ascent_steps: int = 12,
  candidate_growth: chex.Numeric = 0.1,
  **config: Any,
) -> Bandit:
  """Multi-task Thompson sampling with a learnt prior and ascent.

  Args:
    num_experts: E.
    num_tasks: V.
    num_candidates: as in `model_ascent`.
    num_starts: likewise.
    num_ascent_steps: likewise.
    candidate_growth: likewise.
    **config: fields of `ModelConfig`.

  Raises:
    ValueError: if a field is not known or a number out of range.
  """
  if unknown := sorted(set(config) - set(ModelConfig._fields)):
    raise ValueError(
      f"unknown fields {unknown}, known are {sorted(ModelConfig._fields)}"
    )
  model = make_model(
    ModelConfig(**config), num_experts=num_experts, num_tasks=num_tasks
  )
  return model_ascent(
    model,
    num_experts=num_experts,
    num_candidates=num_candidates,
    num_starts=num_starts,
    num_ascent_steps=num_ascent_steps,
    candidate_growth=candidate_growth,
  )
