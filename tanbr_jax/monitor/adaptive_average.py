"""Task mix by several moving averages, weighted by how well they predict.

How fast a mix moves is not known beforehand: on a stream whose dominant task
changes within five slots an average over five slots is late, and where the mix
stays an average over one is noise. [R] Here averages of several decays run side
by side; each predicts the next slot's requests, a multinomial with the shares

  p_k = (c_k + 1/10) / sum(c_k + 1/10)

of its decayed counts c_k (the tenth of a request keeps a task that was not seen
possible), and the estimate is the mean of the averages with weights
softmax(s_k), s_k <- memory s_k + log p_k(counts): aggregation by exponential
weights (Vovk, "A game of prediction with expert advice", 1998), of the last
1 / (1 - memory) slots. Letters: V tasks, K averages.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Decay
from tanbr_jax.monitor import base

_DECAYS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.96, 0.99)
_UNSEEN = 0.1


class AdaptiveAverageState(NamedTuple):
  """State of the averages.

  Attributes:
    counts: [K, V] float32, decayed.
    scores: [K] float32, the log-likelihood of the last slots.
  """

  counts: jax.Array
  scores: jax.Array


@ranges.checked
def adaptive_moving_average(
  *,
  num_tasks: Count,
  decays: Sequence[Decay] = _DECAYS,
  memory: Decay = 0.98,
) -> base.Monitor:
  """Monitor that finds out how many slots to average over.

  Args:
    num_tasks: V.
    decays: [K] those of the averages, see `exponential_moving_average`.
    memory: factor of the scores each slot.

  Raises:
    ValueError: num_tasks < 1, no decays, or a number outside [0, 1).
  """
  if not len(decays):
    raise ValueError(f"decays must hold at least one, got {decays=}")
  start = AdaptiveAverageState(
    jnp.zeros((len(decays), num_tasks), jnp.float32),
    jnp.zeros(len(decays), jnp.float32),
  )
  rates = jnp.asarray(decays, jnp.float32)
  return base.Monitor(
    init=Partial(_init, start),
    update=Partial(_update, rates, jnp.float32(memory)),
    estimate=Partial(_estimate),
  )


def _init(start: AdaptiveAverageState) -> AdaptiveAverageState:
  return jax.tree.map(jnp.copy, start)


def _update(
  decays: jax.Array,
  memory: jax.Array,
  state: AdaptiveAverageState,
  task_count: jax.Array,
) -> AdaptiveAverageState:
  counts = task_count.astype(jnp.float32)
  shares = state.counts + _UNSEEN
  shares = shares / jnp.sum(shares, axis=1, keepdims=True)
  # A sum, as accelerators round the factors of a product.
  likelihood = jnp.sum(counts[None] * jnp.log(shares), axis=1)
  new = AdaptiveAverageState(
    decays[:, None] * state.counts + counts[None],
    memory * state.scores + likelihood,
  )
  seen = jnp.any(task_count > 0)
  return jax.tree.map(lambda a, b: jnp.where(seen, a, b), new, state)


def _estimate(state: AdaptiveAverageState) -> jax.Array:
  weights = jax.nn.softmax(state.scores)
  averages = jax.vmap(base.normalise)(state.counts)
  return jnp.sum(weights[:, None] * averages, axis=0)
