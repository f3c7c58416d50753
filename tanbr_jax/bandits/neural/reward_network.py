"""The reward network: merge weights in, one reward for each task out.

As in the paper (Han et al., arXiv 2509.19781, sec. on Tanbr): the input is x
only, the task mix weighs the outputs; two hidden layers of 64.

`init`, `symmetric_init` and `fan_in_init` return the parameters at the start;
each consumes its key. Letters: V tasks, E experts.
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

  @nn.compact
  def __call__(
    self, merge_weights: jax.Array, *, features: bool = False
  ) -> jax.Array:
    """Returns the rewards [V] of merge_weights [E].

    With `features` it returns one output's gradient in its last layer,
    [num_features]: the last hidden activation, and a 1 for the bias if there is
    one, times `output_scale`.
    """
    x = merge_weights
    for layer, width in enumerate(self.hidden):
      dense = nn.Dense(
        width,
        use_bias=self.use_bias,
        kernel_init=nn.initializers.he_normal(),
        name=f"hidden_layers_{layer}",
      )
      x = nn.relu(dense(x))
    if features:
      one = jnp.ones((int(self.use_bias),), x.dtype)
      return self.output_scale * jnp.append(x, one)
    output = nn.Dense(
      self.num_tasks,
      use_bias=self.use_bias,
      kernel_init=nn.initializers.zeros_init(),
      name="output",
    )
    return self.output_scale * output(x)

  @property
  def num_features(self) -> int:
    """Returns how many `features` there are."""
    return self.hidden[-1] + self.use_bias


def init(key: jax.Array, network: RewardNetwork, *, num_experts: int) -> Params:
  """Returns the network's parameters; f = 0."""
  return network.init(key, jnp.zeros((num_experts,), jnp.float32))


def symmetric_init(
  key: jax.Array, network: RewardNetwork, *, num_experts: int
) -> Params:
  """Returns parameters with f = 0 whose hidden gradients are not zero.

  NeuralUCB's start (Zhou, Li, Gu 2020, sec. 4): two equal halves of the
  network, normal with variance 4 / m in the hidden layers and 2 / m in the
  last one, where the second half enters with the opposite sign. All widths
  must be even.
  """
  shapes = _shapes(network, num_experts)
  params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  layers = params["params"]
  *hidden_keys, output_key = jax.random.split(key, len(network.hidden) + 1)
  fan_in = num_experts
  for layer, width in enumerate(network.hidden):
    half = jax.random.normal(
      hidden_keys[layer], (fan_in, width // 2), jnp.float32
    )
    half = half * (4 / width) ** 0.5
    layers[f"hidden_layers_{layer}"]["kernel"] = (
      jnp.tile(half, (1, 2))
      if layer == 0
      else jax.scipy.linalg.block_diag(half, half)
    )
    fan_in = width // 2
  half = jax.random.normal(output_key, (fan_in, network.num_tasks), jnp.float32)
  half = half * (1 / fan_in) ** 0.5
  layers["output"]["kernel"] = jnp.concatenate([half, -half])
  return params


def fan_in_init(
  key: jax.Array, network: RewardNetwork, *, num_experts: int
) -> Params:
  """Returns weights and biases uniform in +-1 / sqrt(fan-in).

  That is how PyTorch begins a linear layer, hence NeuralUCB's public code;
  f is not 0.
  """
  shapes = _shapes(network, num_experts)
  leaves, tree = jax.tree.flatten_with_path(shapes)
  drawn = []
  for (path, leaf), leaf_key in zip(
    leaves, jax.random.split(key, len(leaves)), strict=True
  ):
    kernel = shapes["params"][path[1].key]["kernel"]
    bound = kernel.shape[0] ** -0.5
    drawn.append(
      jax.random.uniform(
        leaf_key, leaf.shape, minval=-bound, maxval=bound, dtype=jnp.float32
      )
    )
  return jax.tree.unflatten(tree, drawn)


def _shapes(network: RewardNetwork, num_experts: int) -> Params:
  """Returns the shapes of the parameters; nothing is drawn."""
  weights = jnp.zeros((num_experts,), jnp.float32)
  return jax.eval_shape(network.init, jax.random.key(0), weights)
