"""Fills arrays where they stay, from parts that lie in mapped files.

A leaf is never whole on the host unless the host is its device: each part is
cast on its way to the device's buffer. Letters: E experts.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding

from tanbr_jax.models.huggingface.mapping import Index

_ALIGNMENT = 64  # bytes, so that JAX on a CPU takes a buffer as it is
_STRIP = 16  # rows


class Source(NamedTuple):
  """A part of a leaf, as it lies in a file.

  Attributes:
    at: which part of the leaf; () for all.
    view: its values, a view of the mapped file.
    is_transposed: whether the last two axes are the other way in the leaf.
  """

  at: Index
  view: np.ndarray
  is_transposed: bool


def fill(
  leaf: jax.ShapeDtypeStruct,
  sources: Sequence[Source],
  sharding: NamedSharding | None,
) -> jax.Array:
  """Returns a leaf that consists of these sources.

  Args:
    leaf: its shape and type.
    sources: parts that cover it.
    sharding: where it goes, its first axis divided or all of it copied; None
      for the default device.
  """
  if sharding is None:
    device = jax.config.jax_default_device or jax.local_devices()[0]
    if isinstance(device, str):
      device = jax.local_devices(backend=device)[0]
    return _on_device(leaf, sources, device)
  # Every device's rows are read for that device alone; copies are made of the
  # first one.
  made: dict[tuple[int, int], jax.Array] = {}
  shards = []
  indices = sharding.addressable_devices_indices_map(leaf.shape)
  for device, index in indices.items():
    low, high, _ = (index or (slice(None),))[0].indices(leaf.shape[0])
    if (low, high) in made:
      shards.append(jax.device_put(made[low, high], device))
      continue
    part = jax.ShapeDtypeStruct((high - low, *leaf.shape[1:]), leaf.dtype)
    own = sources
    if part.shape != leaf.shape:
      rows = [_rows(source, low, high) for source in sources]
      own = [row for row in rows if row is not None]
    made[low, high] = _on_device(part, own, device)
    shards.append(made[low, high])
  return jax.make_array_from_single_device_arrays(leaf.shape, sharding, shards)


def _rows(source: Source, low: int, high: int) -> Source | None:
  """What lies in these experts, counted from the first of them."""
  if not source.at:
    return source._replace(view=source.view[low:high])
  expert, *rest = source.at
  if not low <= expert < high:
    return None
  return source._replace(at=(expert - low, *rest))


def _on_device(
  leaf: jax.ShapeDtypeStruct, sources: Sequence[Source], device: jax.Device
) -> jax.Array:
  if device.platform == "cpu":
    return _on_host(leaf, sources, device)
  return _part_by_part(leaf, sources, device)


def _part_by_part(
  leaf: jax.ShapeDtypeStruct, sources: Sequence[Source], device: jax.Device
) -> jax.Array:
  """Sends parts in the files' order of axes to a buffer on the device."""
  buffer = jnp.zeros(leaf.shape, leaf.dtype, device=device)
  for source in sources:
    for at, part in _small(source, leaf.shape):
      put = _put_transposed if source.is_transposed else _put
      start = jax.device_put(np.int32(at), device)
      buffer = put(
        buffer, jax.device_put(np.ascontiguousarray(part), device), start
      )
      # One part at a time is in flight, or they all would wait on the host.
      buffer.block_until_ready()
  return buffer


def _on_host(
  leaf: jax.ShapeDtypeStruct, sources: Sequence[Source], device: jax.Device
) -> jax.Array:
  size = leaf.size * leaf.dtype.itemsize
  raw = np.empty(size + _ALIGNMENT, np.uint8)
  begin = -raw.ctypes.data % _ALIGNMENT
  buffer = raw[begin : begin + size].view(leaf.dtype).reshape(leaf.shape)
  for source in sources:
    if source.is_transposed:
      copy_transposed(buffer[source.at], source.view)
    else:
      buffer[source.at] = source.view
  # The buffer becomes the array: nothing writes to it again.
  return jax.device_put(buffer, device, may_alias=True)


def copy_transposed(to: np.ndarray, view: np.ndarray) -> None:
  """Copies [..., M, N] to [..., N, M], in strips that stay in the cache."""
  for begin in range(0, view.shape[-2], _STRIP):
    strip = view[..., begin : begin + _STRIP, :]
    to[..., begin : begin + _STRIP] = strip.swapaxes(-1, -2)


def _small(
  source: Source, leaf_shape: tuple[int, ...]
) -> list[tuple[list[int], np.ndarray]]:
  """The source matrix by matrix: where each starts, with all axes."""
  starts, sizes = [], []
  at = (*source.at, *[slice(None)] * (len(leaf_shape) - len(source.at)))
  for index, size in zip(at, leaf_shape, strict=True):
    if isinstance(index, int):
      starts.append(index)
      sizes.append(1)
    else:
      begin, end, _ = index.indices(size)
      starts.append(begin)
      sizes.append(end - begin)
  if source.is_transposed:
    sizes[-2:] = sizes[:-3:-1]
  view = source.view.reshape(sizes)
  if view.ndim < 3:
    return [(starts, view)]
  return [
    ([starts[0] + i, *starts[1:]], view[i : i + 1]) for i in range(len(view))
  ]


@functools.partial(jax.jit, donate_argnums=0)
def _put(buffer: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
  return lax.dynamic_update_slice(buffer, part.astype(buffer.dtype), start)


@functools.partial(jax.jit, donate_argnums=0)
def _put_transposed(
  buffer: jax.Array, part: jax.Array, start: jax.Array
) -> jax.Array:
  part = part.swapaxes(-1, -2).astype(buffer.dtype)
  return lax.dynamic_update_slice(buffer, part, start)
