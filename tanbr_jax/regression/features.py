"""Gradient features of one candidate; `vmap` over candidates.

NeuralUCB (Zhou, Li, Gu 2020, Algorithm 1) measures how well a candidate x is
known by the gradient g of the network's output in its parameters. Ours has V
outputs, hence V gradients; the paper (arXiv 2509.19781) does not say whether
it keeps one for each task or that of psi . f, so both are here [R].

All functions take one candidate; the parameters are flattened in the order of
`jax.flatten_util.ravel_pytree`. Letters: V tasks, E experts, P parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from tanbr_jax.bandits.neural.reward_network import RewardNetwork

Params = Any
ApplyFn = Callable[[Params, jax.Array], jax.Array]


def gradient_features(
  apply_fn: ApplyFn, params: Params, merge_weights: jax.Array
) -> jax.Array:
  """Returns the gradient of every output in the parameters, [V, P].

  Args:
    apply_fn: `apply_fn(params, merge_weights) -> [V]`.
    params: its parameters.
    merge_weights: [E] float32, one candidate.
  """
  jacobian = jax.jacrev(apply_fn)(params, merge_weights)
  return jax.vmap(lambda row: ravel_pytree(row)[0])(jacobian)


def mixed_gradient_features(
  apply_fn: ApplyFn,
  params: Params,
  merge_weights: jax.Array,
  task_mix: jax.Array,
) -> jax.Array:
  """Returns the gradient of task_mix . f in the parameters, [P].

  It is task_mix @ gradient_features(...) at the cost of one backward pass.

  Args:
    apply_fn: `apply_fn(params, merge_weights) -> [V]`.
    params: its parameters.
    merge_weights: [E] float32, one candidate.
    task_mix: [V] float32.
  """
  _, backward = jax.vjp(lambda p: apply_fn(p, merge_weights), params)
  return ravel_pytree(backward(task_mix)[0])[0]


def last_layer_features(
  network: RewardNetwork, params: Params, merge_weights: jax.Array
) -> jax.Array:
  """Returns the gradient of any one output in its last layer, [width + 1].

  It is the last hidden activation with a 1 for the bias: the same for every
  task, so one matrix serves all.

  Args:
    network: the network.
    params: its parameters.
    merge_weights: [E] float32, one candidate.
  """
  return network.apply(params, merge_weights, method="features")
