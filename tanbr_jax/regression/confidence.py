"""Confidence of a linearised reward model: g' Z^-1 g, Z = lambda I + sum g g'.

The three forms of NeuralUCB's covariance (Zhou, Li, Gu, "Neural Contextual
Bandits with UCB-based Exploration", ICML 2020, Algorithm 1; the diagonal form
is the one of its authors' code):

  full        `full(num_features=P)` on `features.mixed_gradient_features`
  diagonal    `diagonal(num_features=P)` on the same
  last layer  `full(num_features=width + 1)` on the last hidden layer and a 1

The paper's 1/m (m the width) belongs to its network with a factor sqrt(m);
for ours, which has none, g g' and g'Z^-1 g are taken as they are.

Letters: P features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.regression import square_root

State = Any


class Confidence(NamedTuple):
  """A confidence form as three pure functions; a pytree.

  Attributes:
    init: `init() -> state`.
    quadratic_form: `quadratic_form(state, features [P]) -> []`, g' Z^-1 g.
    update: `update(state, features [P], weight=1.0) -> state`, for
      Z += weight g g'; weight 0 gives back the same bits.
  """

  init: Callable[[], State]
  quadratic_form: Callable[[State, jax.Array], jax.Array]
  update: Callable[..., State]


class DiagonalState(NamedTuple):
  """The diagonal of Z as the unevaluated sum `high + low`.

  Attributes:
    high: [P] float32.
    low: [P] float32, what rounding took from `high`.
  """

  high: jax.Array
  low: jax.Array


def full(
  *, num_features: int, regularisation: jax.Array | float = 1.0
) -> Confidence:
  """The whole matrix, as a square root of its inverse: O(P^2) an update.

  The state is a `square_root.SquareRoot`; `square_root.colour` samples from it.

  Args:
    num_features: P.
    regularisation: [] or [P], positive: lambda, or one value for each feature.

  Raises:
    ValueError: num_features < 1, a value not positive, or another shape.
  """
  precision = prior_precision(num_features, regularisation)
  return Confidence(
    init=Partial(square_root.init, precision),
    quadratic_form=Partial(square_root.quadratic_form),
    update=Partial(_full_update),
  )


def diagonal(
  *, num_features: int, regularisation: jax.Array | float = 1.0
) -> Confidence:
  """The diagonal of Z alone: O(P) an update and of state.

  Args:
    num_features: P.
    regularisation: [] or [P], positive: lambda, or one value for each feature.

  Raises:
    ValueError: num_features < 1, a value not positive, or another shape.
  """
  precision = prior_precision(num_features, regularisation)
  return Confidence(
    init=Partial(_diagonal_init, precision),
    quadratic_form=Partial(_diagonal_quadratic_form),
    update=Partial(_diagonal_update),
  )


def prior_precision(
  num_features: int, regularisation: jax.Array | float
) -> jax.Array:
  """Returns lambda for each feature, [P]: a leaf that carries P as its shape.

  Args:
    num_features: P.
    regularisation: [] or [P]; its values are checked where they are concrete.

  Raises:
    ValueError: num_features < 1, a value not positive, or another shape.
  """
  if num_features < 1:
    raise ValueError(
      f"num_features must be at least 1, got num_features={num_features}"
    )
  if not isinstance(regularisation, jax.core.Tracer):
    if not np.all(np.asarray(regularisation) > 0):
      raise ValueError(
        f"regularisation must be positive, got regularisation={regularisation}"
      )
  if np.shape(regularisation) not in ((), (num_features,)):
    raise ValueError(
      "regularisation must have shape () or (num_features,), got shape "
      f"{np.shape(regularisation)}, num_features={num_features}"
    )
  return jnp.broadcast_to(
    jnp.asarray(regularisation, jnp.float32), (num_features,)
  )


def _full_update(
  state: square_root.SquareRoot,
  features: jax.Array,
  weight: jax.Array | float = 1.0,
) -> square_root.SquareRoot:
  return square_root.update(state, features, weight)[0]


def _diagonal_init(precision: jax.Array) -> DiagonalState:
  return DiagonalState(high=precision, low=jnp.zeros_like(precision))


def _diagonal_quadratic_form(
  state: DiagonalState, features: jax.Array
) -> jax.Array:
  return jnp.sum(features**2 / (state.high + state.low))


def _diagonal_update(
  state: DiagonalState, features: jax.Array, weight: jax.Array | float = 1.0
) -> DiagonalState:
  weight = jnp.asarray(weight, state.high.dtype)
  high, low = square_root.compensated_add(
    state.high, state.low, weight * features**2
  )
  seen = weight > 0
  return DiagonalState(
    high=jnp.where(seen, high, state.high),
    low=jnp.where(seen, low, state.low),
  )
