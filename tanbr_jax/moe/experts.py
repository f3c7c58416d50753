"""Experts as one stacked tree, and the dense FFN that merging makes of it.

Letters: E experts, D model width, F an expert's hidden width.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tanbr_jax import kernels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeedForward:
  """One plain feed-forward block, `relu(x w_in)^2 w_out`.

  Attributes:
    w_in: [D, F].
    w_out: [F, D].
  """

  w_in: jax.Array
  w_out: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Experts:
  """E feed-forward blocks, stacked.

  Attributes:
    w_in: [E, D, F].
    w_out: [E, F, D].
  """

  w_in: jax.Array
  w_out: jax.Array

  @property
  def num_experts(self) -> int:
    """E."""
    return self.w_in.shape[0]


def init_experts(
  key: jax.Array,
  num_experts: int,
  *,
  model_dim: int,
  expert_dim: int,
) -> Experts:
  """Draws experts whose outputs have about the variance of their inputs.

  Args:
    key: random key, consumed.
    num_experts: E.
    model_dim: D.
    expert_dim: F.

  Returns:
    Float32 `Experts`, [E, D, F] and [E, F, D].
  """
  in_key, out_key = jax.random.split(key)
  w_in = jax.random.normal(in_key, (num_experts, model_dim, expert_dim))
  w_out = jax.random.normal(out_key, (num_experts, expert_dim, model_dim))
  # relu(h)^2 of a standard normal h has a second moment of 3/2.
  return Experts(
    w_in=w_in * model_dim**-0.5, w_out=w_out * (1.5 * expert_dim) ** -0.5
  )


def merge(experts: Experts, merge_weights: jax.Array) -> FeedForward:
  """Averages the experts into one dense block.

  Args:
    experts: E stacked experts.
    merge_weights: [E]; any real weights, usually a point of the simplex.

  Returns:
    The block whose parameters are the weighted sums of the experts': 1/E of
    their bytes.

  Raises:
    ValueError: if the number of weights is not the number of experts.
  """
  if merge_weights.shape != (experts.num_experts,):
    raise ValueError(
      "merge_weights must be [num_experts], got "
      f"merge_weights {merge_weights.shape}, num_experts={experts.num_experts}"
    )
  return FeedForward(
    w_in=kernels.weighted_sum(experts.w_in, merge_weights),
    w_out=kernels.weighted_sum(experts.w_out, merge_weights),
  )


def activation(x: jax.Array) -> jax.Array:
  """Squared ReLU (So et al., Primer, 2021)."""
  return jnp.square(jax.nn.relu(x))
