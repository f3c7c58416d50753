"""Exponentiated gradient: a multiplicative step on the simplex.

Kivinen and Warmuth, "Exponentiated gradient versus gradient descent for linear
predictors", Information and Computation 1997; fixed share: Herbster and
Warmuth, "Tracking the best expert", Machine Learning 1998. Letters: V tasks, E
experts, R rows (see `learner`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit, Shape
from tanbr_jax.bandits.first_order.learner import (
  Learner,
  describe_nothing,
  first_order_bandit,
  mix_rows,
  row_gradients,
  rows_shape,
)
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Decay, Positive


class Numbers(NamedTuple):
  """Numbers of the step, traced.

  Attributes:
    learning_rate: [] eta.
    share: [] alpha, in [0, 1).
  """

  learning_rate: jax.Array
  share: jax.Array


def init(shape: Shape) -> jax.Array:
  """Log weights [R, E] of equal weights."""
  return jnp.full(shape, -jnp.log(jnp.float32(shape[1])), jnp.float32)


def play(log_rows: jax.Array, task_mix: jax.Array) -> jax.Array:
  """Returns x [E]."""
  return mix_rows(jax.nn.softmax(log_rows, axis=1), task_mix)


def step(
  numbers: Numbers,
  log_rows: jax.Array,
  task_mix: jax.Array,
  gradient: jax.Array,
) -> jax.Array:
  """One step of log weights [R, E] upwards."""
  gradients = row_gradients(log_rows, task_mix, gradient)
  log_rows = jax.nn.log_softmax(
    log_rows + numbers.learning_rate * gradients, axis=1
  )
  share = numbers.share
  return jnp.logaddexp(
    jnp.log1p(-share) + log_rows, jnp.log(share / log_rows.shape[1])
  )


@ranges.checked
def exponentiated_gradient(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  learning_rate: Positive = 0.3,
  share: Decay = 1e-3,
  contextual: bool = False,
  gradient_scale: Positive | None = None,
) -> Bandit:
  """Multiplies weights by the exponentials of their derivatives.

  A row p_r with derivative g_r makes

    p_r <- (1 - alpha) p_r exp(eta g_r) / Z + alpha / E.

  With alpha = 0, one row and |g_e| <= G in every slot, regret against any fixed
  weights is at most log(E) / (eta G) + eta G T / 2 in units of G, G sqrt(2 T
  log E) at the best eta (Kivinen and Warmuth 1997). With alpha > 0 also against
  weights that change: log(E) becomes (m + 1) log(E) + T h(alpha) for m changes
  (Herbster and Warmuth 1998).

  Args:
    num_experts: E.
    num_tasks: V.
    learning_rate: eta, in units of 1 / the gradients' largest entry.
    share: alpha, what every slot spreads evenly, so that no weight is lost.
    contextual: a row for each task, x = psi P, in place of one row for all.
    gradient_scale: a bound G on the gradients' entries, the unit of eta; None
      for the largest so far.

  Raises:
    ValueError: if a number is out of range.
  """
  shape = rows_shape(num_experts, num_tasks, contextual)
  numbers = Numbers(jnp.float32(learning_rate), jnp.float32(share))
  learner = Learner(
    Partial(init, shape),
    Partial(play),
    Partial(step, numbers),
    Partial(describe_nothing),
  )
  return first_order_bandit(learner, gradient_scale)
