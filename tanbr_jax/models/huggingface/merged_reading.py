"""Reads a checkpoint folder into the merged model alone.

Letters: L layers with experts, E experts.
"""

import os

import jax
import jax.numpy as jnp

from tanbr_jax import kernels
from tanbr_jax.models.base import Params
from tanbr_jax.models.decoder import Decoder
from tanbr_jax.models.huggingface import leaves, reading
from tanbr_jax.models.merging import dense_form, layer_weights


def merge_pretrained(
  path: str | os.PathLike[str],
  merge_weights: jax.Array,
  *,
  dtype: str | jnp.dtype | None = None,
) -> tuple[Decoder, Params]:
  """Returns `merge` of what `from_pretrained` reads, in little memory.

  One matrix of the E experts of one layer is there at a time, so that a model
  can be merged where it would not fit with its experts.

  Args:
    path: as for `from_pretrained`.
    merge_weights: floating [E], the same for every layer, or [L, E].
    dtype: as for `from_pretrained`.

  Returns:
    The dense model and its parameters.

  Raises:
    ValueError: before any array is made, as `from_pretrained` and `merge`.
  """
  found = reading.check(path, dtype=dtype)
  config = found.model.config
  weights = layer_weights(config, merge_weights)
  dense = dense_form(found.model)
  shapes, structure = leaves.shapes_of(dense)
  arrays = {}
  for name, array in reading.read_leaves(found):
    if leaves.is_expert(name, found.model):
      layer = int(name.split("/")[0].removeprefix("layer_"))
      own = weights[config.moe_layers.index(layer)]
      # Done before the next matrix is read.
      array = kernels.weighted_sum(array, own).block_until_ready()
    arrays[name] = array
  return dense, jax.tree.unflatten(structure, [arrays[name] for name in shapes])
