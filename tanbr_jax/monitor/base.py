"""The monitor's contract: an estimate of the task mix from request counts.

At the start of a slot the paper's monitor gives the task mix from the history
of requests (Han et al., arXiv 2509.19781: "an exponential moving average or a
Count-Min Sketch"). Letters: V tasks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

State = Any


class Monitor(NamedTuple):
  """A monitor as three pure functions; a pytree.

  Attributes:
    init: `init() -> state`.
    update: `update(state, task_count [V] int32) -> state`, once a slot. A slot
      without requests changes nothing.
    estimate: `estimate(state) -> task_mix [V]` float32 on the simplex; uniform
      before the first request.
  """

  init: Callable[[], State]
  update: Callable[[State, jax.Array], State]
  estimate: Callable[[State], jax.Array]


def normalise(counts: jax.Array) -> jax.Array:
  """Returns counts / sum(counts), [V] float32, or uniform if all are zero.

  Args:
    counts: [V] non-negative, of any real dtype.
  """
  counts = counts.astype(jnp.float32)
  total = jnp.sum(counts)
  uniform = jnp.full_like(counts, 1 / counts.shape[0])
  return jnp.where(total > 0, counts / jnp.where(total > 0, total, 1), uniform)
