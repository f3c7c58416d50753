"""A process whose mix stays the same. Letters: V tasks."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape, begin
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Positive
from tanbr_jax.environments.mixes.base import MixProcess
from tanbr_jax.simplex.points import check_simplex, dirichlet


@ranges.checked
def fixed(
  mix: jax.Array | None = None,
  *,
  num_tasks: Count | None = None,
  concentration: Positive = 0.25,
) -> MixProcess:
  """The same mix in every slot.

  Args:
    mix: [V] on the simplex; None draws one Dirichlet(concentration) mix from
      the key of `init`, so that every seed has its own.
    num_tasks: V; may be left out when `mix` is given.
    concentration: of the Dirichlet, small for concentrated mixes.

  Returns:
    A `MixProcess` whose state is the mix.

  Raises:
    ValueError: if `mix` is not on the simplex or not of length `num_tasks`, or
      if neither is given.
  """
  if mix is None:
    if num_tasks is None:
      raise ValueError("fixed needs mix or num_tasks, got neither")
    init = Partial(
      dirichlet,
      concentration=jnp.float32(concentration),
      shape=Shape((num_tasks,)),
    )
  else:
    init = Partial(begin, _checked_mix(mix, num_tasks))
  return MixProcess(init, Partial(_identity), Partial(_stay))


def _checked_mix(mix: jax.Array, num_tasks: int | None) -> jax.Array:
  values = np.asarray(mix, np.float64)
  if values.ndim != 1 or num_tasks not in (None, values.size):
    raise ValueError(
      f"mix must have shape [num_tasks], got shape {list(values.shape)}, "
      f"num_tasks={num_tasks}"
    )
  return check_simplex("mix", values)


def _identity(state: jax.Array) -> jax.Array:
  return state


def _stay(key: jax.Array, state: jax.Array) -> jax.Array:
  del key
  return state
