"""How much each layer's router uses each expert, on calibration tokens.

Letters: L layers with experts, E experts, S tokens of a sequence.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import models, moe


def usage_weights(
  model: models.Model,
  params: models.Params,
  input_ids: np.ndarray,
  *,
  batch_size: int = 8,
  on_batch: Callable[[], object] = lambda: None,
) -> jax.Array:
  """Returns [L, E] float32, each expert's share of a layer's pairs.

  Args:
    model: a model with experts.
    params: its parameters.
    input_ids: [n, S] integer tokens.
    batch_size: sequences that are read at once.
    on_batch: called after every batch.
  """
  pairs = np.zeros((), np.int64)
  for begin in range(0, len(input_ids), batch_size):
    batch = jnp.asarray(input_ids[begin : begin + batch_size], jnp.int32)
    pairs = pairs + np.asarray(_count_pairs(model, params, batch), np.int64)
    on_batch()
  return jnp.asarray(pairs / pairs.sum(axis=1, keepdims=True), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _count_pairs(
  model: models.Model, params: models.Params, input_ids: jax.Array
) -> jax.Array:
  observe = Partial(moe.observe_experts, ())
  return model.apply(params, input_ids, observe=observe)[1].num_pairs
