"""A tiny byte model with experts, and text of three tasks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import data, models


class Tiny(NamedTuple):
  model: models.ByteLM
  params: models.Params
  text: data.TaskText
  arrays: list[np.ndarray]


@pytest.fixture(scope="session")
def tiny():
  model = models.ByteLM(
    models.ByteLMConfig(
      num_layers=1,
      model_dim=8,
      num_heads=2,
      head_dim=4,
      expert_dim=16,
      num_experts=3,
      num_selected=2,
      context=6,
    )
  )
  rng = np.random.default_rng(0)
  # Filled in by NumPy, because `model.init` takes seconds to compile. Large,
  # or the weights would hardly matter in a random model.
  params = jax.tree.map(
    lambda leaf: jnp.asarray(0.6 * rng.normal(size=leaf.shape), leaf.dtype),
    jax.eval_shape(model.init, jax.random.key(1)),
  )
  # Few distinct bytes, so that a random model is sometimes right.
  arrays = [
    rng.integers(8 * v, 8 * v + 4, 90 + 10 * v).astype(np.uint8)
    for v in range(3)
  ]
  return Tiny(model, params, data.from_arrays(arrays), arrays)
