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
    use_bias: whether layers have biases. NeuralUCB's theorem has none; on the
      simplex, where sum x = 1, the first layer loses nothing by that.
    output_scale: what the output is multiplied by; sqrt(m) in that theorem.
  """

  num_tasks: int
  hidden: Sequence[int] = (64, 64)
  use_bias: bool = True
  output_scale: float = 1.0

  def setup(self) -> None:
    """Makes the layers."""
    self.hidden_layers = [
      nn.Dense(
        width,
        use_bias=self.use_bias,
        kernel_init=nn.initializers.he_normal(),
      )
      for width in self.hidden
    ]
    self.output = nn.Dense(
      self.num_tasks,
      use_bias=self.use_bias,
      kernel_init=nn.initializers.zeros_init(),
    )

  def __call__(self, merge_weights: jax.Array) -> jax.Array:
    """Returns the rewards [V] of merge_weights [E]."""
    return self.output_scale * self.output(self._last_hidden(merge_weights))

  @property
  def num_features(self) -> int:
    """Length of what `features` returns."""
    return self.hidden[-1] + self.use_bias

  def features(self, merge_weights: jax.Array) -> jax.Array:
    """Returns one output's gradient in its last layer, [num_features].

    That is the last hidden activation, and a 1 for the bias if there is one,
    times `output_scale`.
    """
    last = self._last_hidden(merge_weights)
    if self.use_bias:
      last = jnp.append(last, jnp.ones((1,), last.dtype), axis=-1)
    return self.output_scale * last

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


def fan_in_init(
  key: jax.Array, network: RewardNetwork, *, num_experts: int
) -> Params:
  """Returns weights and biases uniform in +-1 / sqrt(fan-in).

  That is how PyTorch begins a linear layer, hence NeuralUCB's public code;
  f is not 0.

  Args:
    key: random key, consumed.
    network: the network.
    num_experts: E.
  """
  params = init(key, network, num_experts=num_experts)
  leaves, tree = jax.tree.flatten_with_path(params)
  fan_ins = {
    path[1].key: leaf.shape[0]
    for path, leaf in leaves
    if path[-1].key == "kernel"
  }
  drawn = []
  keys = jax.random.split(key, len(leaves))
  for (path, leaf), leaf_key in zip(leaves, keys, strict=True):
    bound = fan_ins[path[1].key] ** -0.5
    drawn.append(
      jax.random.uniform(leaf_key, leaf.shape, minval=-bound, maxval=bound)
    )
  return jax.tree.unflatten(tree, drawn)
