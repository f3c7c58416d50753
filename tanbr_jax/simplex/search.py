"""Search for the best merge weights when the objective is differentiable."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


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

  Args:
    objective: x [E] -> [] float32. Bind arrays with `jax.tree_util.Partial`.
    starts: [R, E] points of the simplex.
    steps: evaluations of each start, at least 1.
    learning_rate: of Adam, in units of the logits.

  Returns:
    The best x [E] of all starts and steps, and its value []. A value that is
    not finite never wins over one that is.

  Raises:
    ValueError: if starts is not [R, E] or steps < 1.
  """
  if starts.ndim != 2 or steps < 1:
    raise ValueError(
      "starts must be [R, E] and steps at least 1, got "
      f"starts {starts.shape}, steps={steps}"
    )
  optimiser = optax.adam(learning_rate)

  def value_at(logits: jax.Array) -> jax.Array:
    return objective(jax.nn.softmax(logits))

  def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
    value, grad = jax.value_and_grad(value_at)(carry.logits)
    # Adam may step past the best point, so it is kept.
    is_better = value > carry.best_value
    best_x = jnp.where(is_better, jax.nn.softmax(carry.logits), carry.best_x)
    best_value = jnp.where(is_better, value, carry.best_value)
    # Optax mixes integer counts with floats, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimiser.update(-grad, carry.optimiser_state)
    logits = optax.apply_updates(carry.logits, updates)
    return _Carry(logits, state, best_x, best_value), None

  def climb(start: jax.Array) -> tuple[jax.Array, jax.Array]:
    num_experts = start.shape[0]
    # A start on the border has no logits, hence the move inside.
    logits = jnp.log(0.999 * start + 0.001 / num_experts)
    carry = _Carry(logits, optimiser.init(logits), start, jnp.float32(-jnp.inf))
    carry, _ = jax.lax.scan(step, carry, length=steps)
    return carry.best_x, carry.best_value

  # All starts climb at once; the best point of any of them wins.
  best_x, best_value = jax.vmap(climb)(starts.astype(jnp.float32))
  winner = jnp.argmax(best_value)
  return best_x[winner], best_value[winner]
