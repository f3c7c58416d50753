import jax
import jax.numpy as jnp
import pytest

from tanbr_jax import models

SEQUENCES, LENGTH = 2, 8


@pytest.fixture(scope="package")
def tiny():
  """A byte model of four experts, top-2, and two sequences of eight bytes."""
  config = models.ByteLMConfig(
    num_layers=2,
    model_dim=8,
    num_heads=1,
    head_dim=8,
    expert_dim=16,
    num_experts=4,
    context=LENGTH,
  )
  model = models.ByteLM(config)
  params = model.init(jax.random.key(0))
  ids = jax.random.randint(
    jax.random.key(1), (SEQUENCES, LENGTH), 0, 256, jnp.int32
  )
  return model, params, ids
