"""The optimiser of `sparse_tuning`, whose rates are arrays.

They stand in the trained tree, which nothing moves: trainings that differ in
rates or in the number of steps are one compiled program.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tanbr_jax.training.tuning_config import TuningConfig

# Parts of the tree that have a rate of their own.
_RATED = ("model", "added")


def schedule(config: TuningConfig) -> dict[str, jax.Array]:
  """The rates of a training, for the entry "schedule" of the trained tree."""
  num_steps = -(-config.num_steps // config.accumulate)
  values = {
    "model": config.learning_rate,
    "added": config.added_learning_rate,
    "num_steps": num_steps,
    "warmup_steps": round(config.warmup_share * num_steps),
  }
  return {name: jnp.float32(value) for name, value in values.items()}


@functools.lru_cache(maxsize=8)
def make(clip_norm: float, accumulate: int) -> optax.GradientTransformation:
  """Adam for "model" and "added", plain steps for "beta".

  Args:
    clip_norm: largest norm of the model's and of the added gradient.
    accumulate: batches whose mean gradient is one step.
  """

  def adam() -> optax.GradientTransformation:
    return optax.chain(
      optax.clip_by_global_norm(clip_norm), optax.scale_by_adam(b2=0.98)
    )

  directions = optax.multi_transform(
    {
      "model": adam(),
      "added": adam(),
      "beta": optax.sgd(1.0),
      "schedule": optax.set_to_zero(),
    },
    lambda trained: {name: name for name in trained},
  )
  optimiser = optax.chain(directions, _by_schedule())
  if accumulate == 1:
    return optimiser
  return optax.MultiSteps(optimiser, accumulate).gradient_transformation()


class _Count(NamedTuple):
  """Steps that were taken, [] int32."""

  count: jax.Array


def _by_schedule() -> optax.GradientTransformation:
  """Steps of the rate: from zero to the highest one, and back to zero."""

  def init(trained: dict[str, Any]) -> _Count:
    del trained
    return _Count(jnp.zeros((), jnp.int32))

  def update(
    updates: dict[str, Any], state: _Count, trained: dict[str, Any]
  ) -> tuple[dict[str, Any], _Count]:
    rates = trained["schedule"]
    warmup, count = rates["warmup_steps"], state.count.astype(jnp.float32)
    rise = count / jnp.maximum(warmup, 1)
    fall = 1 - (count - warmup) / jnp.maximum(rates["num_steps"] - warmup, 1)
    share = jnp.where(count < warmup, rise, jnp.maximum(fall, 0))
    scaled = dict(updates)
    for name in _RATED:
      if name in updates:
        rate = -share * rates[name]
        scaled[name] = jax.tree.map(
          lambda x, rate=rate: rate.astype(x.dtype) * x, updates[name]
        )
    return scaled, _Count(state.count + 1)

  return optax.GradientTransformation(init, update)
