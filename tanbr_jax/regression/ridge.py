"""Recursive ridge regression of V task rewards on common features.

The posterior of a Bayesian linear model r_v = f'w_v + noise / sqrt(weight)
with prior w_v ~ N(0, Lambda^-1) and noise of variance 1 (scale `variance` by
the noise's own). One observation f, r moves it by

  A <- (A^-1 + weight f f')^-1,   W <- W + weight A f (r - f'W),

which equals the closed form (Lambda + F'F)^-1 F'R in exact arithmetic and
keeps its digits in float32, where solving from accumulated F'F, F'R does not.
A is a `square_root.SquareRoot`; what rounding takes from W is kept too.

Letters: V tasks, P features.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from tanbr_jax.regression import square_root
from tanbr_jax.regression.confidence import prior_precision


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RidgeState:
  """The posterior.

  Attributes:
    root: square root of A, matrices [V, P, P], one a task.
    weights: [P, V] float32, the posterior mean W.
    weights_low: [P, V] float32, what rounding took from `weights`.
  """

  root: square_root.SquareRoot
  weights: jax.Array
  weights_low: jax.Array


class Ridge(NamedTuple):
  """Ridge regression as four pure functions; a pytree.

  Attributes:
    init: `init() -> RidgeState`.
    update: `update(state, features [P], task_reward [V], task_count [V]) ->
      state`, where a mean of `count` requests has noise of variance 1 / count;
      a task with count 0 keeps the same bits.
    predict: `predict(state, features [P]) -> [V]`, f'W.
    variance: `variance(state, features [P]) -> [V]`, f'Af for each task in
      units of the noise's variance, without the noise itself.
  """

  init: Callable[[], RidgeState]
  update: Callable[..., RidgeState]
  predict: Callable[[RidgeState, jax.Array], jax.Array]
  variance: Callable[[RidgeState, jax.Array], jax.Array]


def per_task(
  *,
  num_features: int,
  num_tasks: int,
  regularisation: jax.Array | float = 1.0,
) -> Ridge:
  """One A for each task: right whatever tasks a slot shows.

  Args:
    num_features: P.
    num_tasks: V.
    regularisation: [] or [P], positive: Lambda in units of 1 / (variance of
      one request's noise), i.e. noise variance / prior variance.

  Raises:
    ValueError: num_features or num_tasks < 1, regularisation not positive.
  """
  precision = prior_precision(num_features, regularisation)
  if num_tasks < 1:
    raise ValueError(f"num_tasks must be at least 1, got num_tasks={num_tasks}")
  weights = jnp.zeros((num_features, num_tasks), jnp.float32)
  return Ridge(
    init=Partial(_init, precision, weights),
    update=Partial(_update),
    predict=Partial(_predict),
    variance=Partial(_variance),
  )


def _init(precision: jax.Array, weights: jax.Array) -> RidgeState:
  root = square_root.init(precision)
  num_tasks = weights.shape[1]
  root = jax.tree.map(lambda m: jnp.stack([m] * num_tasks), root)
  return RidgeState(root=root, weights=weights, weights_low=weights)


def _predict(state: RidgeState, features: jax.Array) -> jax.Array:
  weights = state.weights + state.weights_low
  return jnp.matmul(features, weights, precision=lax.Precision.HIGHEST)


def _variance(state: RidgeState, features: jax.Array) -> jax.Array:
  form = jax.vmap(square_root.quadratic_form, in_axes=(0, None))
  return form(state.root, features)


def _update(
  state: RidgeState,
  features: jax.Array,
  task_reward: jax.Array,
  task_count: jax.Array,
) -> RidgeState:
  # A, and the gain [P, V] of each task; then W += gain (reward - f'W).
  step = jax.vmap(square_root.update, in_axes=(0, None, 0), out_axes=(0, 1))
  root, gain = step(state.root, features, task_count.astype(features.dtype))
  error = task_reward - _predict(state, features)
  high, low = square_root.compensated_add(
    state.weights, state.weights_low, gain * error[None, :]
  )
  seen = (task_count > 0)[None, :]
  return RidgeState(
    root=root,
    weights=jnp.where(seen, high, state.weights),
    weights_low=jnp.where(seen, low, state.weights_low),
  )
