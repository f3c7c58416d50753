import dataclasses

import jax
import jax.numpy as jnp
import kernel_reference
import numpy as np
import pytest

from experiments.kernels import inputs as kernel_inputs
from experiments.kernels import rows as kernel_rows
from experiments.kernels import shipped_block
from experiments.kernels.shapes import SHAPES, Shape, routed_work
from tanbr_jax import kernels, moe

SHAPE = Shape("test", 3, 2, 8, 16, renormalise=True, shared_dim=4)
TOKENS = 5


@pytest.fixture(scope="module")
def rows():
  experts = kernel_inputs.expert_sets(SHAPE)[:2]
  merged = kernel_inputs.merged_sets(experts)[:2]
  block = kernel_rows.Block(SHAPE, TOKENS, experts, merged)
  return block.rows(["routed", "merged", "masked", "parts"])


def arrays(experts):
  """Weights in float64: gate, in, out of the experts, and of the shared."""
  blocks = (experts, experts.shared)
  return [
    tuple(np.asarray(w, np.float64) for w in (b.w_gate, b.w_in, b.w_out))
    for b in blocks
  ]


def assert_near(found, expected):
  # bfloat16 keeps 8 bits: 2^-8 in each of a few roundings along the way.
  difference = np.asarray(found, np.float64) - expected
  assert np.linalg.norm(difference) < 2e-2 * np.linalg.norm(expected)


def check_block(row, num_sets):
  for experts, router, x, *keep in row.inputs[:num_sets]:
    own, shared = arrays(experts)
    expected = kernel_reference.block(
      SHAPE,
      *own,
      np.asarray(router, np.float64),
      np.asarray(x, np.float64),
      keep=np.asarray(keep[0]) if keep else None,
      shared=shared,
    )
    assert_near(jax.jit(row.function)(experts, router, x, *keep), expected)


def test_routed_block_is_a_loop_over_tokens(rows):
  check_block(rows["routed"], 2)


def test_masked_block_leaves_pairs_out(rows):
  check_block(rows["masked"], 2)
  kept = np.mean([np.mean(keep) for *_, keep in rows["masked"].inputs])
  # 32 sets of 10 pairs: a standard deviation of 0.02.
  assert kept == pytest.approx(kernel_inputs.KEPT_SHARE, abs=0.08)


def test_merged_block_is_one_dense_block(rows):
  row = rows["merged"]
  feed_forward, x = row.inputs[1]
  own, shared = arrays(feed_forward)
  x64 = np.asarray(x, np.float64)
  expected = sum(kernel_reference.dense(SHAPE, *w, x64) for w in (own, shared))
  assert_near(row.function(feed_forward, x), expected)


def test_work_counts_the_experts_that_are_active(rows):
  for name in ("routed", "masked"):
    row, bytes_, flops = rows[name], [], []
    for _, router, x, *keep in row.inputs:
      routing = kernel_rows.route(router, x, shape=SHAPE)
      ids = np.asarray(routing.expert_ids)
      ids = ids[np.asarray(keep[0])] if keep else ids
      work = routed_work(
        SHAPE,
        TOKENS,
        num_pairs=ids.size,
        num_active=len(set(ids.ravel().tolist())),
      )
      bytes_.append(work.num_bytes)
      flops.append(work.flops)
    assert row.work == pytest.approx((np.mean(bytes_), np.mean(flops)))
    assert row.all_experts.num_bytes >= row.work.num_bytes
    assert row.all_experts.flops == row.work.flops


def test_parts_make_the_routed_block(rows):
  """Each part's output is the next one's input, on the same tokens."""
  experts, router, x = rows["routed"].inputs[0]
  part = {name.removeprefix("part/"): row for name, row in rows.items()}
  routing = part["route"].function(router, x)
  order = part["sort"].function(routing.expert_ids)
  gathered = part["dispatch"].function(x, order)
  out = part["grouped_ffn"].function(gathered, experts, order)
  out = part["combine"].function(out, order, routing.gates)
  expected = rows["routed"].function(experts, router, x)
  own = moe.apply(experts.shared, x) + out
  assert_near(own, np.asarray(expected, np.float64))
  # And their own inputs are of these shapes.
  for name in ("route", "sort", "dispatch", "grouped_ffn", "combine"):
    row = part[name]
    jax.eval_shape(row.function, *row.inputs[0])


def test_merging_rows():
  experts = kernel_inputs.expert_sets(SHAPE)[:2]
  rows = kernel_rows.merging_rows(SHAPE, experts)
  matrix, many = rows["merge_16"].inputs[1]
  expected = np.einsum(
    "re,eij->rij", np.asarray(many, np.float64), np.asarray(matrix, np.float64)
  )
  assert_near(rows["merge_16"].function(matrix, many), expected)
  for name in ("merge", "merge_einsum"):
    matrix, one = rows[name].inputs[1]
    np.testing.assert_array_equal(one, many[0])
    assert_near(rows[name].function(matrix, one), expected[0])
  # Every element is written, and not by handing back the same buffer.
  np.testing.assert_array_equal(rows["copy"].function(matrix), -matrix)


def test_inputs_exceed_the_cache_and_no_more():
  assert kernel_inputs.num_sets(2.8e9) == 2
  assert kernel_inputs.num_sets(75.5e6) == 4  # 302 MB.
  assert kernel_inputs.num_sets(1.0) == 32
  found = kernel_inputs.zipped([1, 2], [3, 4, 5], [6])
  assert found == [(1, 3, 6), (2, 4, 6), (1, 5, 6)]


def test_shipped_kernel_stands_between_our_parts(rows, monkeypatch):
  def grouped(lhs, rhs, group_sizes, tile):
    return kernels.grouped_matmul(lhs, rhs, group_sizes)

  monkeypatch.setattr(shipped_block, "_grouped", grouped)
  experts, router, x = rows["routed"].inputs[0]
  found = shipped_block.block(
    experts,
    router,
    x,
    shape=SHAPE,
    route=kernel_rows.route,
    tile=shipped_block.Tile(64),
  )
  expected = rows["routed"].function(experts, router, x)
  assert_near(found, np.asarray(expected, np.float64))


def test_shipped_kernel_takes_every_shape(monkeypatch):
  """Its tiles divide all matrices: it checks one side only."""
  module = pytest.importorskip(
    "jax.experimental.pallas.ops.gpu.ragged_dot_mgpu",
    exc_type=ImportError,
  )
  asked = []

  def ragged_dot(lhs, rhs, **options):
    asked.append((rhs.shape, options))
    return jnp.zeros((lhs.shape[0], rhs.shape[2]), lhs.dtype)

  monkeypatch.setattr(module, "ragged_dot", ragged_dot)
  for name, shape in SHAPES.items():
    if name.startswith("tiny"):
      continue
    shape = dataclasses.replace(shape, shared_dim=0)
    for tile in shipped_block.TILES.values():
      for sides in (
        (shape.model_dim, shape.expert_dim),
        (shape.expert_dim, shape.model_dim),
      ):
        rhs = jnp.zeros((1, *sides), jnp.bfloat16)
        lhs = jnp.zeros((1, sides[0]), jnp.bfloat16)
        shipped_block._grouped(lhs, rhs, jnp.ones(1, jnp.int32), tile)
  for (_, rows_, columns), options in asked:
    assert rows_ % options["block_k"] == 0
    assert columns % (options["block_n"] * options["grid_block_n"]) == 0
