import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tanbr_jax.training import tuning_optimiser
from tanbr_jax.training.tuning_config import TuningConfig

CONFIG = TuningConfig(
  num_steps=20,
  learning_rate=0.1,
  added_learning_rate=0.3,
  warmup_share=0.3,
  clip_norm=0.5,
)


def adam(rate):
  """Optax's own schedules: three steps up, seven down."""
  schedule = optax.join_schedules(
    [optax.linear_schedule(0.0, rate, 3), optax.linear_schedule(rate, 0.0, 7)],
    [3],
  )
  return optax.chain(
    optax.clip_by_global_norm(0.5), optax.adam(schedule, b2=0.98)
  )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_are_those_of_optax_with_schedules(accumulate):
  # Ten steps of the optimiser.
  config = dataclasses.replace(
    CONFIG, num_steps=10 * accumulate, accumulate=accumulate
  )
  tree = {
    "model": {"a": jnp.array([1.0, -2.0]), "b": jnp.float32(3)},
    "added": jnp.array([0.5]),
    "beta": jnp.float32(0.1),
  }
  plain = optax.multi_transform(
    {"model": adam(0.1), "added": adam(0.3), "beta": optax.sgd(1.0)},
    lambda tree: {name: name for name in tree},
  )
  if accumulate == 2:
    plain = optax.MultiSteps(plain, 2).gradient_transformation()
  mine = tuning_optimiser.make(config.clip_norm, config.accumulate)
  schedule = tuning_optimiser.schedule(config)
  other = tree | {"schedule": schedule}

  @jax.jit
  def step(tree, state, other, other_state, key):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    grads = jax.tree.unflatten(
      structure,
      [
        jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)
      ],
    )
    zeros = jax.tree.map(jnp.zeros_like, schedule)
    with jax.numpy_dtype_promotion("standard"):
      moves, state = plain.update(grads, state, tree)
      tree = optax.apply_updates(tree, moves)
      grads |= {"schedule": zeros}
      moves, other_state = mine.update(grads, other_state, other)
      other = optax.apply_updates(other, moves)
    return tree, state, other, other_state

  with jax.numpy_dtype_promotion("standard"):
    state, other_state = plain.init(tree), mine.init(other)
  start = tree
  for index in range(config.num_steps):
    key = jax.random.fold_in(jax.random.key(0), index)
    tree, state, other, other_state = step(tree, state, other, other_state, key)
  moved = {name: other[name] for name in tree}
  for one, two in zip(
    jax.tree.leaves(tree), jax.tree.leaves(moved), strict=True
  ):
    np.testing.assert_allclose(one, two, rtol=1e-5)
  for name, value in schedule.items():
    assert float(other["schedule"][name]) == float(value)
  assert abs(float(tree["added"][0] - start["added"][0])) > 0.1
