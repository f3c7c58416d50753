"""Search for the best merge weights when the objective is differentiable.

A value that is not finite never wins, here and wherever `best` chooses.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from tanbr_jax.simplex.varying import alike


def best(values: jax.Array) -> jax.Array:
  """Returns [] int32, the index of the largest finite value of [N].

  The first of equal ones, and 0 where none is finite.
  """
  values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
  return jnp.argmax(values).astype(jnp.int32)


class _Carry(NamedTuple):
  logits: jax.Array  # [E]
  optimiser_state: optax.OptState
  best_x: jax.Array  # [E]
  best_value: jax.Array  # []


def maximise_on_simplex(
  objective: Callable[[jax.Array], jax.Array],
  starts: jax.Array,
  *,
  steps: int = 50,
  learning_rate: float = 0.2,
) -> tuple[jax.Array, jax.Array]:
  """Climbs from every start and returns the best point that was visited.

  Adam ascends the logits of `x = softmax(logits)`; a start on the simplex's
  border is moved inside by 1e-3 of the uniform point, or it could not move.
  Where the objective or its gradient is not finite, the ascent goes on from
  the best point that it has seen.

  Args:
    objective: x [E] -> [] float32. Bind arrays with `jax.tree_util.Partial`.
    starts: [R, E] points of the simplex.
    steps: evaluations of each start, at least 1.
    learning_rate: of Adam, in units of the logits.

  Returns:
    The best x [E] of all starts and steps, and its value []. A value that is
    not finite never wins; where none is finite, the first start and -inf.

  Raises:
    ValueError: if starts is not [R, E] with R >= 1, steps < 1, or the rate is
      not finite and above 0.
  """
  if (
    jnp.ndim(starts) != 2
    or 0 in jnp.shape(starts)
    or steps < 1
    or not 0 < learning_rate < math.inf
  ):
    raise ValueError(
      "starts must be [R, E] with R >= 1, steps at least 1 and learning_rate "
      f"finite and above 0, got starts {jnp.shape(starts)}, steps={steps}, "
      f"learning_rate={learning_rate}"
    )
  optimiser = optax.adam(learning_rate)

  def value_at(logits: jax.Array) -> jax.Array:
    return objective(jax.nn.softmax(logits))

  def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
    value, grad = jax.value_and_grad(value_at)(carry.logits)
    # Adam may step past the best point, so it is kept.
    is_better = jnp.isfinite(value) & (value > carry.best_value)
    best_x = jnp.where(is_better, jax.nn.softmax(carry.logits), carry.best_x)
    best_value = jnp.where(is_better, value, carry.best_value)
    # One NaN would stay in Adam's averages.
    is_usable = jnp.isfinite(value) & jnp.all(jnp.isfinite(grad))
    grad = jnp.where(is_usable, grad, jnp.zeros_like(grad))
    logits = jnp.where(is_usable, carry.logits, _logits(best_x))
    # Optax mixes integer counts with floats, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimiser.update(-grad, carry.optimiser_state)
    logits = optax.apply_updates(logits, updates)
    return _Carry(logits, state, best_x, best_value), None

  def climb(start: jax.Array) -> tuple[jax.Array, jax.Array]:
    start = alike(start, jax.eval_shape(objective, start))
    logits = _logits(start)
    lowest = jnp.full_like(start, -jnp.inf, shape=())
    carry = _Carry(logits, optimiser.init(logits), start, lowest)
    carry, _ = jax.lax.scan(step, carry, length=steps)
    return carry.best_x, carry.best_value

  # All starts climb at once; the best point of any of them wins.
  best_x, best_value = jax.vmap(climb)(jnp.asarray(starts, jnp.float32))
  winner = best(best_value)
  return best_x[winner], best_value[winner]


def _logits(point: jax.Array) -> jax.Array:
  # A point on the border has no logits, hence the move inside.
  return jnp.log(0.999 * point + 0.001 / point.shape[0])
