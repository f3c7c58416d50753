"""The reward network: merge weights in, one reward for each task out.

As in the paper (Han et al., arXiv 2509.19781, sec. on Tanbr): the input is x
only, the task mix weighs the outputs; two hidden layers of 64.

Letters: V tasks, E experts.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Params = Any


class RewardNetwork(nn.Module):
  """Merge weights [E] -> rewards [V]: relu layers, then a linear one.

  The linear layer starts at zero, so that f = 0 before the first reward, as
  NeuralUCB asks. [R] With it the gradient in the hidden layers is zero too
  until the first step; where that matters see `symmetric_init`.

  Attributes:
    num_tasks: V.
    hidden: widths of the hidden layers.
  """

  num_tasks: int
  hidden: Sequence[int] = (64, 64)

  def setup(self) -> None:
    """Makes the layers."""
    self.hidden_layers = [
      nn.Dense(width, kernel_init=nn.initializers.he_normal())
      for width in self.hidden
    ]
    self.output = nn.Dense(
      self.num_tasks, kernel_init=nn.initializers.zeros_init()
    )

  def __call__(self, merge_weights: jax.Array) -> jax.Array:
    """Returns the rewards [V] of merge_weights [E]."""
    return self.output(self._last_hidden(merge_weights))

  def features(self, merge_weights: jax.Array) -> jax.Array:
    """Returns the last hidden activation and a 1, [width + 1]."""
    last = self._last_hidden(merge_weights)
    return jnp.append(last, jnp.ones((1,), last.dtype), axis=-1)

  def _last_hidden(self, merge_weights: jax.Array) -> jax.Array:
    x = merge_weights
    for layer in self.hidden_layers:
      x = nn.relu(layer(x))
    return x


def init(key: jax.Array, network: RewardNetwork, *, num_experts: int) -> Params:
  """Returns the network's parameters; f = 0.

  Args:
    key: random key, consumed.
    network: the network.
    num_experts: E.
  """
  return network.init(key, jnp.zeros((num_experts,), jnp.float32))


def symmetric_init(
  key: jax.Array, network: RewardNetwork, *, num_experts: int
) -> Params:
  """Returns parameters with f = 0 whose hidden gradients are not zero.

  NeuralUCB's start (Zhou, Li, Gu 2020, sec. 4): two equal halves of the
  network, normal with variance 4 / m in the hidden layers and 2 / m in the
  last one, where the second half enters with the opposite sign.

  Args:
    key: random key, consumed.
    network: the network; its widths must be even.
    num_experts: E.

  Raises:
    ValueError: an odd width.
  """
  if any(width % 2 for width in network.hidden):
    raise ValueError(f"widths must be even, got hidden={network.hidden}")
  params = init(key, network, num_experts=num_experts)["params"]
  keys = jax.random.split(key, len(network.hidden) + 1)
  fan_in = num_experts
  for layer, (layer_key, width) in enumerate(
    zip(keys, network.hidden, strict=False)
  ):
    half = jax.random.normal(layer_key, (fan_in, width // 2))
    half = half * (4 / width) ** 0.5
    kernel = (
      jnp.tile(half, (1, 2))
      if layer == 0
      else jax.scipy.linalg.block_diag(half, half)
    )
    params[f"hidden_layers_{layer}"]["kernel"] = kernel
    fan_in = width // 2
  half = jax.random.normal(keys[-1], (fan_in, network.num_tasks))
  half = half * (1 / fan_in) ** 0.5
  params["output"]["kernel"] = jnp.concatenate([half, -half])
  return {"params": params}
