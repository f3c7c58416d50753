"""Kernels for Hopper against NumPy loops in float64.

On a Hopper GPU they run on it; elsewhere in Pallas' interpreter, where the
installed jax has one.
"""

import contextlib
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe
from tanbr_jax.kernels import implementations

grouped_matmul = importlib.import_module("tanbr_jax.kernels.grouped_matmul")

mosaic_gpu = pytest.importorskip(
  "tanbr_jax.kernels.mosaic_gpu", exc_type=ImportError
)
plgpu = pytest.importorskip("jax.experimental.pallas.mosaic_gpu")


@pytest.fixture(autouse=True)
def device(monkeypatch):
  """A Hopper GPU, or an interpreter with two blocks of it."""
  if mosaic_gpu.why_not() is None:
    mode = contextlib.nullcontext()
  elif hasattr(plgpu, "force_gpu_interpret_mode"):
    mode = plgpu.force_gpu_interpret_mode()
    monkeypatch.setattr(mosaic_gpu, "num_blocks", lambda: 2)
  else:
    pytest.skip(f"no interpreter in jax {jax.__version__}")
  # Kernels mix integer types inside.
  with mode, jax.numpy_dtype_promotion("standard"):
    with jax.numpy_rank_promotion("allow"):
      yield


def _draw(seed, *shape, dtype=jnp.bfloat16, scale=1.0):
  values = np.random.default_rng(seed).normal(size=shape) * scale
  return jnp.array(values, dtype)


def _wide(x):
  return np.asarray(x.astype(jnp.float32), np.float64)


# name -> (rows, group sizes): the tile of 128 rows, of 64, of 16.
GROUPS = {
  "large, an empty group and a tail": (400, [150, 0, 129, 60]),
  "not a multiple of eight": (203, [1, 202]),
  "middle": (60, [33, 0, 7]),
  "few": (16, [3, 0, 9, 1]),
  "one row": (1, [0, 0, 1]),
}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", GROUPS)
def test_grouped_products_equal_a_loop(name, dtype):
  num_rows, sizes = GROUPS[name]
  lhs = _draw(0, num_rows, 128, dtype=dtype)
  rhs = _draw(1, len(sizes), 128, 128, dtype=dtype, scale=128**-0.5)
  out = _wide(
    jax.jit(mosaic_gpu.grouped_matmul)(lhs, rhs, jnp.array(sizes, jnp.int32))
  )
  start = 0
  for group, size in enumerate(sizes):
    rows = slice(start, start + size)
    expected = _wide(lhs[rows]) @ _wide(rhs[group])
    # Sums are float32; one rounding to 8 bits (bfloat16), values up to 4.
    np.testing.assert_allclose(out[rows], expected, atol=2e-2)
    start += size


@pytest.mark.parametrize("activation", ["silu", "relu2", "gelu_tanh"])
@pytest.mark.parametrize("is_gated", [True, False])
def test_gated_products_equal_a_loop(activation, is_gated):
  sizes = [5, 0, 70]
  x, up = _draw(0, 80, 64), _draw(1, 3, 64, 128, scale=1 / 8)
  gate = _draw(2, 3, 64, 128, scale=1 / 8) if is_gated else None
  out = jax.jit(mosaic_gpu.grouped_gated_matmul, static_argnums=4)(
    x, gate, up, jnp.array(sizes, jnp.int32), activation
  )
  act = {
    "silu": lambda a: a / (1 + np.exp(-a)),
    "relu2": lambda a: np.maximum(a, 0) ** 2,
    "gelu_tanh": lambda a: (
      a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
    ),
  }[activation]
  start = 0
  for group, size in enumerate(sizes):
    rows = _wide(x[start : start + size])
    hidden = rows @ _wide(up[group])
    if is_gated:
      hidden = act(rows @ _wide(gate[group])) * hidden
    else:
      hidden = act(hidden)
    # Float32 inside with approximate functions (1e-3 of the value), rounded
    # once to bfloat16 (4e-3).
    np.testing.assert_allclose(
      _wide(out[start : start + size]), hidden, rtol=6e-3, atol=2e-3
    )
    start += size


def test_rows_past_the_groups_are_not_read():
  lhs = _draw(0, 200, 64).at[70:].set(jnp.nan)
  rhs = _draw(1, 1, 64, 128, scale=1 / 8)
  out = jax.jit(mosaic_gpu.grouped_matmul)(lhs, rhs, jnp.array([70], jnp.int32))
  np.testing.assert_allclose(
    _wide(out[:70]), _wide(lhs[:70]) @ _wide(rhs[0]), atol=2e-2
  )


def test_rows_go_to_their_places():
  x = _draw(0, 9, 192)
  place = np.random.default_rng(1).permutation(27).reshape(9, 3)
  is_skipped = np.random.default_rng(2).random((9, 3)) < 0.3
  shown = np.where(is_skipped, 27, place).astype(np.int32)
  out = _wide(jax.jit(mosaic_gpu.dispatch)(x, jnp.array(shown)))
  for token, k in np.argwhere(~is_skipped):
    np.testing.assert_array_equal(out[place[token, k]], _wide(x[token]))


@pytest.mark.parametrize("num_experts", [16, 3])
@pytest.mark.parametrize("num_results", [2, 17])
def test_many_merges_equal_a_product(num_experts, num_results):
  rng = np.random.default_rng(0)
  experts = np.array(_wide(_draw(0, num_experts, 2, 1024)))
  weights = rng.dirichlet(np.ones(num_experts), num_results)
  weights = weights.astype(np.float32)
  weights[0, 1] = 0.0
  expected = np.einsum("re,eij->rij", weights.astype(np.float64), experts)
  experts[1, 1, 5] = np.nan
  out = jax.jit(mosaic_gpu.weighted_sum)(
    jnp.array(experts, jnp.bfloat16), jnp.array(weights)
  )
  # Float32 sums, one rounding to bfloat16 of values of about 1.
  np.testing.assert_allclose(_wide(out[0]), expected[0], atol=2e-2)
  # The NaN reaches exactly those whose weight for its expert is not zero.
  is_nan = np.isnan(_wide(out))
  assert is_nan[1:, 1, 5].all()
  assert is_nan.sum() == num_results - 1


@pytest.mark.parametrize(("num_tokens", "num_experts"), [(70, 64), (65, 12)])
def test_largest_ids_are_those_of_a_stable_sort(num_tokens, num_experts):
  rng = np.random.default_rng(0)
  # One decimal: many ties.
  scores = rng.normal(size=(num_tokens, num_experts)).round(1)
  scores[3] = -np.inf
  scores[4, 1:] = -np.inf
  scores[5, 7] = np.nan
  ids = jax.jit(mosaic_gpu.largest_ids, static_argnums=1)(
    jnp.array(scores, jnp.float32), 3
  )
  sortable = np.where(np.isnan(scores), np.inf, scores)
  expected = np.argsort(-sortable, axis=1, kind="stable")[:, :3]
  np.testing.assert_array_equal(ids, expected)


def test_ranks_equal_counts():
  rng = np.random.default_rng(0)
  # Ids -1 and 12 are of no group; some tokens name a group twice.
  ids = rng.integers(-1, 13, size=(140, 3)).astype(np.int32)
  ranks, counts, block = jax.jit(mosaic_gpu.block_ranks, static_argnums=1)(
    jnp.array(ids), 12
  )
  for token, k in np.argwhere((ids >= 0) & (ids < 12)):
    earlier = ids[token // block * block : token]
    assert ranks[token, k] == (earlier == ids[token, k]).sum()
  for i, row in enumerate(np.asarray(counts)):
    of_block = ids[i * block : (i + 1) * block]
    assert row.tolist() == [(of_block == group).sum() for group in range(12)]


@pytest.fixture
def any_device(monkeypatch):
  """Operations choose the kernels here too, in the interpreter.

  Returns `jax.jit`, or, for the interpreter, nothing that compiles around the
  kernels: its callbacks are ordered, which it tells only the nearest `jit`.
  """
  if mosaic_gpu.why_not() is None:
    return jax.jit
  on_platform = implementations.on_platform
  on_platform.cache_clear()
  monkeypatch.setattr(implementations, "platform", lambda: "gpu")
  monkeypatch.setattr(mosaic_gpu, "why_not", lambda: None)
  monkeypatch.setattr(
    implementations, "on_platform", lambda _, *args: on_platform("cpu", *args)
  )
  primal = grouped_matmul._on("cuda", mosaic_gpu.grouped_matmul)
  monkeypatch.setitem(grouped_matmul._PRIMALS, "mosaic_gpu", primal)
  return lambda function, **_: function


def test_a_routed_block_and_its_gradients_are_those_of_xla(any_device):
  experts = moe.Experts(
    w_in=_draw(0, 8, 64, 64, scale=1 / 8),
    w_out=_draw(1, 8, 64, 64, scale=1 / 8),
    w_gate=_draw(2, 8, 64, 64, scale=1 / 8),
    activation="silu",
  )
  x, logits = _draw(3, 70, 64), _draw(4, 70, 8, dtype=jnp.float32)
  direction = _draw(5, 70, 64)

  def run(experts, x, logits, implementation):
    routing = moe.top_k(logits, 2)
    out = moe.routed(experts, x, routing, implementation=implementation)
    return jnp.sum((out * direction).astype(jnp.float32)), out

  found = [
    any_device(
      jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True),
      static_argnums=3,
    )(experts, x, logits, implementation)
    for implementation in ("mosaic_gpu", "xla")
  ]
  # Not the sum, which cancels: what is summed, and the gradients.
  found = [(out, grads) for (_, out), grads in found]
  for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
    ours, theirs = _wide(ours), _wide(theirs)
    # Each rounds to bfloat16 at most twice on the way (the hidden layer, the
    # experts' rows) and both once at the end: 4 roundings of at most 2^-9.
    apart = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert apart < 4 * 2**-9


def test_says_why_not():
  why_not = mosaic_gpu.supports_grouped_matmul(
    (8, 64), (2, 64, 96), jnp.bfloat16
  )
  assert "multiples of 64" in why_not and "(2, 64, 96)" in why_not
  assert "float32" in mosaic_gpu.supports_dispatch((8, 64), (8, 2), jnp.float32)
  assert "gelu" in mosaic_gpu.supports_grouped_gated_matmul(
    (8, 64), (2, 64, 64), jnp.bfloat16, "gelu", True
  )
  assert "2048" in mosaic_gpu.supports_weighted_sum(
    (4, 100), (2, 4), jnp.bfloat16
  )
  assert "256 experts" in mosaic_gpu.supports_weighted_sum(
    (512, 2048), (2, 512), jnp.bfloat16
  )
  assert "(2, 0, 64)" in mosaic_gpu.supports_grouped_matmul(
    (8, 0), (2, 0, 64), jnp.bfloat16
  )
