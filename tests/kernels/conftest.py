"""A stand-in for the Hopper kernels: a CPU tests what surrounds them."""

import types

import jax
import jax.numpy as jnp
import pytest

from tanbr_jax import kernels
from tanbr_jax.kernels import implementations
from tanbr_jax.kernels.grouped_matmul import _PRIMALS, _on, zero_tail

TOKENS = 4  # of a block whose pairs are ranked together


def _grouped_matmul(lhs, rhs, group_sizes):
  out = kernels.grouped_matmul(lhs, rhs, group_sizes, implementation="xla")
  is_in = zero_tail(jnp.ones_like(out), group_sizes)
  return jnp.where(is_in == 1, out, jnp.nan)


def _grouped_gated_matmul(x, w_gate, w_in, group_sizes, activation):
  act = kernels.ACTIVATIONS[activation]
  hidden = _grouped_matmul(x, w_in, group_sizes)
  if w_gate is None:
    return act(hidden)
  return act(_grouped_matmul(x, w_gate, group_sizes)) * hidden


def _dispatch(x, place):
  rows = jnp.full((place.size, x.shape[1]), jnp.nan, x.dtype)
  copies = jnp.repeat(x, place.shape[1], axis=0)
  return rows.at[place.reshape(-1)].set(copies, mode="drop")


def _weighted_sum(experts, weights):
  return jnp.stack([kernels.weighted_sum(experts, row) for row in weights])


def _block_ranks(expert_ids, num_groups):
  """The same id in earlier tokens of a block; ids of every block."""
  num_blocks = -(-expert_ids.shape[0] // TOKENS)
  padding = num_blocks * TOKENS - expert_ids.shape[0]
  ids = jnp.pad(expert_ids, ((0, padding), (0, 0)), constant_values=-1)
  hot = jax.nn.one_hot(ids, num_groups, dtype=jnp.int32).sum(1)
  hot = hot.reshape(num_blocks, TOKENS, num_groups)
  before = (jnp.cumsum(hot, axis=1) - hot).reshape(-1, num_groups)
  before = before[: expert_ids.shape[0]]
  ranks = jnp.take_along_axis(before, jnp.maximum(expert_ids, 0), axis=1)
  return ranks, hot.sum(1), TOKENS


@pytest.fixture
def hopper(monkeypatch):
  """The names of the kernels that were called, in the order of calls."""
  calls = []
  functions = {
    "block_ranks": _block_ranks,
    "dispatch": _dispatch,
    "grouped_gated_matmul": _grouped_gated_matmul,
    "grouped_matmul": _grouped_matmul,
    "weighted_sum": _weighted_sum,
  }

  def recorded(name):
    def call(*args):
      calls.append(name)
      return functions[name](*args)

    return call

  package = types.SimpleNamespace(
    **{name: recorded(name) for name in functions}
  )
  on_platform = implementations.on_platform
  on_platform.cache_clear()  # a new function is traced, and recorded, again

  def why_not(operation, *details):
    is_one_result = operation == "weighted_sum" and details[1][0] < 2
    return "one result" if is_one_result else None

  monkeypatch.setattr(implementations, "mosaic_gpu", lambda: package)
  monkeypatch.setattr(implementations, "why_not_mosaic_gpu", why_not)
  monkeypatch.setattr(
    implementations,
    "on_platform",
    lambda _, *args: on_platform("cpu", *args),
  )
  kernel = _on("cuda", package.grouped_matmul)
  monkeypatch.setitem(_PRIMALS, "mosaic_gpu", kernel)
  return calls
