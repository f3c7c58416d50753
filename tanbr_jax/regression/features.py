"""Gradient features of one candidate; `vmap` over candidates.

NeuralUCB (Zhou, Li, Gu 2020, Algorithm 1) measures how well a candidate x is
known by the gradient g of the network's output in its parameters. Ours has V
outputs; the paper (arXiv 2509.19781) does not say whether it keeps a gradient
for each or that of psi . f, which is ours [R].
Letters: V tasks, E experts, P parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from tanbr_jax.simplex.varying import alike

Params = Any
ApplyFn = Callable[[Params, jax.Array], jax.Array]


def mixed_gradient_features(
  apply_fn: ApplyFn,
  params: Params,
  merge_weights: jax.Array,
  task_mix: jax.Array,
) -> jax.Array:
  """Returns the gradient of task_mix . f in the parameters, [P].

  It costs one backward pass; the parameters are flattened in the order of
  `jax.flatten_util.ravel_pytree`.

  Args:
    apply_fn: `apply_fn(params, merge_weights) -> [V]`.
    params: its parameters.
    merge_weights: [E] float32, one candidate.
    task_mix: [V] float32.
  """
  params = alike(params, merge_weights, task_mix)
  rewards, backward = jax.vjp(lambda p: apply_fn(p, merge_weights), params)
  return ravel_pytree(backward(alike(task_mix, rewards))[0])[0]
