"""One tiny model, its parameters and compiled functions, for all its tests."""

import dataclasses
from typing import NamedTuple

import jax
import pytest

from tanbr_jax import models


class Tiny(NamedTuple):
  model: models.ByteLM
  params: models.Params
  ids: jax.Array  # [2, 10]
  apply: callable  # (params, ids) -> logits
  dense: models.ByteLM
  dense_init: callable  # key -> params
  dense_apply: callable  # (params, ids) -> logits


@pytest.fixture(scope="session")
def tiny():
  config = models.ByteLMConfig(
    num_layers=2,
    model_dim=8,
    num_heads=2,
    head_dim=4,
    expert_dim=16,
    num_experts=3,
    num_selected=2,
    context=10,
  )
  model = models.ByteLM(config)
  dense = models.ByteLM(dataclasses.replace(config, num_experts=None))
  return Tiny(
    model=model,
    params=jax.jit(model.init)(jax.random.key(1)),
    ids=jax.random.randint(jax.random.key(0), (2, 10), 0, 256),
    apply=jax.jit(lambda p, ids: model.apply(p, input_ids=ids)),
    dense=dense,
    dense_init=jax.jit(dense.init),
    dense_apply=jax.jit(lambda p, ids: dense.apply(p, input_ids=ids)),
  )
