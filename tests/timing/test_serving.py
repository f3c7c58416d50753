import jax
import jax.numpy as jnp
import pytest

from tanbr_jax import models
from tanbr_jax.timing import latency, serving

CONFIG = models.ByteLMConfig(
  num_layers=2,
  model_dim=8,
  num_heads=1,
  head_dim=4,
  expert_dim=16,
  num_experts=4,
  context=8,
)


def test_costs_of_both_forms(monkeypatch):
  def wall_times(functions, *, repeats):
    assert repeats == 7
    # The timed functions run, and compute what their names say.
    shapes = {
      name: jax.tree.leaves(f())[-1].shape for name, f in functions.items()
    }
    assert shapes["routed/slot_latency_ms"] == (3, 8, 256)
    assert shapes["merged/slot_latency_ms"] == (3, 8, 256)
    milliseconds = (10.0, 4.0, 1.0)
    return {
      name: latency.Latency(value, value - 0.5, value + 0.5)
      for name, value in zip(functions, milliseconds, strict=True)
    }

  monkeypatch.setattr(latency, "wall_times", wall_times)
  model = models.ByteLM(CONFIG)
  ids = jnp.zeros((3, 8), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(0))
  found = serving.slot_costs(
    model,
    params,
    merge_weights=jnp.full(4, 0.25),
    input_ids=ids,
    repeats=7,
  )
  assert found["routed/slot_latency_ms"] == 10.0
  assert found["merged/slot_latency_ms_q3"] == 4.5
  assert found["merged/merge_ms_q1"] == 0.5
  assert found["merged/latency_saving"] == pytest.approx(0.6)
  # Two layers of two matrices of 8 x 16 float32: 2048 bytes, and 4 experts.
  assert found["merged/expert_bytes"] == 2048
  assert found["routed/expert_bytes"] == 4 * 2048
