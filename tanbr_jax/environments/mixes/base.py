"""A process of task mixes, and the check of its mixes' length.

Letters: V tasks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

State = Any


class MixProcess(NamedTuple):
  """A process of task mixes as three pure functions.

  Attributes:
    init: `init(key) -> state`.
    mix: `mix(state) -> [V]` float32 on the simplex, the mix of the slot that
      comes.
    step: `step(key, state) -> state` of the next slot.
  """

  init: Callable[[jax.Array], State]
  mix: Callable[[State], jax.Array]
  step: Callable[[jax.Array, State], State]


def check_mix_length(task_mix: MixProcess, num_tasks: int) -> None:
  """Raises a ValueError unless the mixes of `task_mix` are [num_tasks]."""
  shape = jax.eval_shape(
    lambda key: task_mix.mix(task_mix.init(key)), jax.random.key(0)
  ).shape
  if shape != (num_tasks,):
    raise ValueError(
      f"task_mix must have shape [num_tasks], got shape {list(shape)}, "
      f"num_tasks={num_tasks}"
    )
