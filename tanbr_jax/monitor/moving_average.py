"""Task mix by an exponential moving average of the requests.

[R] The paper names the method and no more. Here the counts themselves decay,

  c <- decay c + task_count,   estimate = c / sum(c),

so that a slot weighs as many requests as it had. Where all slots have the same
number it is the moving average of their shares with Adam's correction,
(1 - decay) sum_i decay^i share_(t-i) / (1 - decay^t): no prior, hence no bias
towards a start value; the first slot's shares are the first estimate.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Decay
from tanbr_jax.monitor import base


@ranges.checked
def exponential_moving_average(
  *, num_tasks: Count, decay: Decay = 0.9
) -> base.Monitor:
  """Monitor whose memory is about 1 / (1 - decay) slots.

  Args:
    num_tasks: V.
    decay: [] in [0, 1); 0 keeps the last slot with requests only. A leaf of
      the monitor: sweep it with `vmap`.

  Raises:
    ValueError: num_tasks < 1 or decay outside [0, 1).
  """
  return base.Monitor(
    init=Partial(jnp.zeros_like, jnp.zeros((num_tasks,), jnp.float32)),
    update=Partial(_update, jnp.asarray(decay, jnp.float32)),
    estimate=Partial(base.normalise),
  )


def _update(
  decay: jax.Array, counts: jax.Array, task_count: jax.Array
) -> jax.Array:
  decayed = decay * counts + task_count.astype(jnp.float32)
  return jnp.where(jnp.any(task_count > 0), decayed, counts)
