"""Gradients that a slot of a synthetic environment shows, noise included.

Letters: V tasks, E experts.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class SlotGradient(NamedTuple):
  """The fields of `Feedback` that tell a gradient.

  Attributes:
    gradient: [E] float32, without its mean; zeros where the count is 0.
    gradient_count: [] int32.
  """

  gradient: jax.Array
  gradient_count: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NoisyGradients:
  """How exact the gradients are, and how many slots have one.

  Attributes:
    noise: [] float32, standard deviation of each entry of one request's
      gradient, before its mean is taken off.
    every: slots from one gradient to the next; the first slot has one.
    requests: of a slot, whose noises are averaged; static.
  """

  noise: jax.Array
  every: jax.Array
  requests: int = dataclasses.field(metadata={"static": True})

  def show(
    self,
    key: jax.Array,
    slot: jax.Array,
    reward: Callable[[jax.Array], jax.Array],
    shares: jax.Array,
    merge_weights: jax.Array,
  ) -> SlotGradient:
    """The gradient of `shares @ reward(x)` at x = `merge_weights`, noisy.

    Args:
      key: random key, consumed.
      slot: [] int32, the slot's number.
      reward: x [E] -> [V].
      shares: [V], of each task in the slot.
      merge_weights: [E].
    """
    exact = jax.grad(lambda x: shares @ reward(x))(merge_weights)
    draws = jax.random.normal(key, exact.shape, exact.dtype)
    noisy = exact + self.noise * draws * self.requests**-0.5
    is_given = slot % self.every == 0
    return SlotGradient(
      jnp.where(is_given, without_mean(noisy), 0.0),
      jnp.where(is_given, jnp.int32(self.requests), jnp.int32(0)),
    )


def noisy_gradients(
  noise: float | None, *, every: int, requests: int | None
) -> NoisyGradients | None:
  """What `synthetic` shows with these arguments; None for a noise of None."""
  if noise is None:
    return None
  return NoisyGradients(jnp.float32(noise), jnp.int32(every), requests or 1)


def without_mean(gradient: jax.Array) -> jax.Array:
  """The part of a gradient [..., E] along the simplex."""
  return gradient - jnp.mean(gradient, axis=-1, keepdims=True)
