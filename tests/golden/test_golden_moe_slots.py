"""20 slots of a tiny byte model, with random weights."""

import golden
import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import bandits, data, models, monitor
from tanbr_jax.environments import mixes, moe_slots
from tanbr_jax.environments.oracle.table import OracleTable
from tanbr_jax.online import rollout


def record():
  model = models.ByteLM(
    models.ByteLMConfig(
      num_layers=2,
      model_dim=8,
      num_heads=2,
      head_dim=4,
      expert_dim=16,
      num_experts=3,
      num_selected=2,
      context=6,
    )
  )
  rng = np.random.default_rng(11)
  shapes = jax.eval_shape(model.init, jax.random.key(1))
  params = jax.tree.map(
    lambda leaf: jnp.asarray(0.6 * rng.normal(size=leaf.shape), leaf.dtype),
    shapes,
  )
  text = data.from_arrays(
    [rng.integers(8 * v, 8 * v + 4, 90).astype(np.uint8) for v in range(3)]
  )
  environment = moe_slots.moe_slots(
    model,
    params,
    text,
    task_mix=mixes.drift(num_tasks=3),
    optimal_table=OracleTable(jnp.eye(3), jnp.eye(3)),
    requests_per_slot=8,
    monitor=monitor.exponential_moving_average(num_tasks=3, decay=0.5),
    reward="log_likelihood",
  )
  trace = rollout.run(
    bandits.random(num_experts=3, num_tasks=3),
    environment,
    num_rounds=20,
    seeds=[5],
    chunk_size=10,
    progress=False,
  )
  return {
    "merge_weights": trace.merge_weights,
    "expected_reward": trace.expected_reward,
    "optimal_reward": trace.optimal_reward,
  }


def test_golden_trace():
  golden.check("moe_slots", record(), ascends=False)
