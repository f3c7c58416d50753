import pytest

from experiments.kernels import shapes as kernel_shapes
from experiments.kernels.shapes import SHAPES, Ceilings, Shape, Work

# An expert has 3 * 8 * 16 = 384 parameters, the shared one 3 * 8 * 4 = 96, the
# router 8 * 4 = 32.
GATED = Shape("gated", 4, 2, 8, 16, shared_dim=4)
PLAIN = Shape("plain", 4, 1, 8, 16, is_gated=False)


def test_work_of_a_routed_block():
  assert GATED.expert_parameters == 384
  assert GATED.shared_parameters == 96
  assert PLAIN.expert_parameters == 256
  found = kernel_shapes.routed_work(GATED, 5, num_pairs=10, num_active=3)
  # Three experts, the shared one, the router, 5 tokens of 8 in and out.
  assert found.num_bytes == 2 * (3 * 384 + 96 + 32 + 2 * 5 * 8)
  # Two operations for each parameter that a pair or a token meets.
  assert found.flops == 2 * (10 * 384 + 5 * (96 + 32))


def test_work_of_the_other_rows():
  found = kernel_shapes.merged_work(GATED, 5)
  assert found == Work(2 * (384 + 96 + 2 * 40), 2 * 5 * (384 + 96))
  found = kernel_shapes.part_work(GATED, 5, num_active=3)
  # 10 rows of 8, ids of 4 bytes.
  assert found["dispatch"] == Work(2 * (40 + 80) + 40)
  assert found["combine"] == Work(2 * (40 + 80) + 2 * 40)
  assert found["grouped_ffn"] == Work(2 * (3 * 384 + 2 * 80), 2 * 10 * 384)
  # 4 experts of 8 x 16 bfloat16 are read, one or three results written.
  assert kernel_shapes.merging_bytes(GATED, 1) == 2 * (512 + 128)
  assert kernel_shapes.merging_bytes(GATED, 3) == 2 * (512 + 3 * 128)


def test_floor_is_the_larger_time():
  ceilings = Ceilings(copy=100.0, read=200.0, matmul=1000.0)
  # 400 bytes at 200 a second, 3,000 operations at 1,000.
  assert kernel_shapes.floor_seconds(Work(400.0), ceilings) == 2.0
  assert kernel_shapes.floor_seconds(Work(400.0, 3000.0), ceilings) == 3.0


def test_sizes_of_real_models():
  # Experts of one layer times layers is nearly the whole model: 46.7 B
  # parameters of Mixtral-8x7B in 32 layers, 30.5 B of Qwen3-30B-A3B in 48,
  # 6.9 B of OLMoE in 16, 15.7 B of DeepSeek-V2-Lite in 26 MoE layers.
  for name, layers, total in (
    ("mixtral", 32, 46.7e9),
    ("qwen3", 48, 30.5e9),
    ("olmoe", 16, 6.9e9),
    ("deepseek", 26, 15.7e9),
  ):
    shape = SHAPES[name]
    experts = layers * shape.num_experts * shape.expert_parameters
    assert experts == pytest.approx(total, rel=0.09)
    assert experts < total
