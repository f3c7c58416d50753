import dataclasses

import jax
import pytest

from experiments.model_latency import floors as latency_floors
from experiments.model_latency.programs import BATCH, FORMS, Sizes
from tanbr_jax import models

TINY = models.preset("tiny")
SIZES = Sizes(5, 7, (3,), 4)


def work(form, batch_size, config=TINY, share=0.5):
  return latency_floors.work(
    config, SIZES, form, batch_size, active_share=share
  )


def test_a_merged_step_reads_every_matrix_and_the_cache():
  dense = dataclasses.replace(TINY, num_experts=None)
  tree = jax.eval_shape(models.Decoder(dense).init, jax.random.key(0))
  leaves = jax.tree.leaves(tree)
  # All but the embedding (64 x 16) and the norms, which are vectors.
  read = sum(leaf.size for leaf in leaves if leaf.ndim > 1) - 64 * 16
  # Positions 8, 9, 10, 11: 9.5 keys and values of two heads of 8, B = 3.
  cache = 2 * 2 * 3 * 9.5 * 2 * 8
  assert work("merged", 3).num_bytes == 4 * (read + cache)


def test_operations_are_two_for_each_weight_and_token():
  # One layer's matrices: attention (4 + 2 + 2 + 4) heads of 8 x 16, shared 3
  # of 16 x 12, merged 3 of 16 x 24. Scores: 9.5 positions, 4 heads of 8, for
  # the products of queries with keys and of shares with values.
  layer = 12 * 8 * 16 + 3 * 16 * 12 + 3 * 16 * 24 + 2 * 9.5 * 4 * 8
  assert work("merged", 3).flops == 2 * 3 * (2 * layer + 64 * 16)


def test_a_merge_reads_all_experts_and_writes_one():
  # Two layers of three 16 x 24 float32 matrices an expert; four and one.
  expected = 2 * 3 * 16 * 24 * 4 * (4 + 1)
  assert latency_floors.merging_work(TINY).num_bytes == expected


def test_experts_in_use():
  def in_use(form, tokens, share=0.5):
    return latency_floors.experts_in_use(TINY, form, tokens, share)

  # E = 4, K = 2: a token uses half of the experts.
  assert in_use("routed", 1) == (2, pytest.approx(2))
  assert in_use("routed", 3) == (6, pytest.approx(4 * (1 - 1 / 8)))
  assert in_use("masked_experts", 1) == (1, pytest.approx(1))
  # Each pair stays with probability 1/2: a quarter of the experts a token.
  assert in_use("masked_pairs", 2) == (2, pytest.approx(4 * (1 - 9 / 16)))
  assert in_use("merged", 9) == (9, 1)


def test_the_forms_in_order():
  for batch_size in (BATCH, 3):
    routed, pairs, half, merged = (work(form, batch_size) for form in FORMS)
    assert merged.num_bytes < half.num_bytes < routed.num_bytes
    assert pairs.num_bytes < routed.num_bytes
    # K = 2: half of the pairs are as many as the merged block's tokens.
    assert pairs.flops == half.flops == merged.flops < routed.flops


def test_bfloat16_halves_the_bytes_alone():
  narrow = dataclasses.replace(TINY, dtype="bfloat16")
  wide, half = work("routed", BATCH), work("routed", BATCH, narrow)
  assert half.num_bytes == wide.num_bytes / 2
  assert half.flops == wide.flops
