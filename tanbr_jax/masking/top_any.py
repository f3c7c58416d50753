"""DynMoE's top-any: every expert opens itself to the tokens that fit it.

Guo et al., Dynamic Mixture of Experts (arXiv 2405.14297, 2024): expert e takes
a token x where sigmoid(cos(x, w_e)) > sigmoid(t_e), with a vector and a
threshold of its own; what a token's experts give is averaged. In inference a
token that no expert takes goes to the nearest one. The comparison's derivative
is taken as one, of the sigmoids' difference.

Put on a model that was trained with top-K it is another model from the start.

Letters: L layers with experts, N tokens, D model width, E experts, K slots.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from tanbr_jax import kernels
from tanbr_jax.checks.ranges import Range
from tanbr_jax.masking import pairs
from tanbr_jax.models import Model, Params
from tanbr_jax.moe import NO_EXPERT, MoeInput, MoeOutput, Routing
from tanbr_jax.moe.scores import pick

AnyRouter = dict[str, jax.Array]


def init_top_any(model: Model, params: Params) -> AnyRouter:
  """The model's own routers as the experts' vectors, with thresholds of zero.

  Returns:
    {"kernel": [L, D, E], "threshold": [L, E]} float32.

  Raises:
    ValueError: if the model has no experts.
  """
  pairs.num_layers(model)
  layers = [params["params"][f"layer_{i}"] for i in model.config.moe_layers]
  kernels_ = [layer["experts"]["router"]["kernel"] for layer in layers]
  kernel = jnp.stack(kernels_).astype(jnp.float32)
  return {
    "kernel": kernel,
    "threshold": jnp.zeros((kernel.shape[0], kernel.shape[2]), jnp.float32),
  }


def top_any(
  model: Model, router: AnyRouter, *, num_slots: int | None = None
) -> Partial:
  """A reroute to all experts that open themselves to a token.

  Args:
    model: with experts.
    router: of `init_top_any`.
    num_slots: the most experts of a token, those of the largest scores; None
      for E.

  Raises:
    ValueError: if `num_slots` is not in [1, E].
  """
  pairs.num_layers(model)
  most = model.config.num_experts
  slots = most if num_slots is None else num_slots
  Range(1, most, "[]").check("num_slots", slots, is_integer=True)
  return Partial(_with_slots(slots), router)


def observe_sparsity(
  router: AnyRouter, layer: MoeInput, output: MoeOutput
) -> jax.Array:
  """[] float32, the source's auxiliary loss: diverse and simple vectors.

  For `observe=Partial(observe_sparsity, router)`: the norm of W^T W - 1, and
  the mean norm of the vectors.
  """
  del layer, output
  kernel = router["kernel"]
  products = kernel.T @ kernel - jnp.eye(kernel.shape[1], dtype=kernel.dtype)
  # Under the root, as a norm has no derivative at zero.
  tiny = jnp.float32(1e-12)
  diversity = jnp.sqrt(jnp.sum(jnp.square(products)) + tiny)
  norms = jnp.sqrt(jnp.sum(jnp.square(kernel), axis=0) + tiny)
  return diversity + jnp.mean(norms)


@functools.cache
def _with_slots(num_slots: int) -> functools.partial:
  return functools.partial(_reroute, num_slots=num_slots)


def _reroute(router: AnyRouter, layer: MoeInput, *, num_slots: int) -> Routing:
  x = layer.hidden.astype(jnp.float32)
  kernel = router["kernel"]
  tiny = jnp.float32(1e-12)
  norms = jnp.sum(jnp.square(x), axis=1, keepdims=True)
  norms = jnp.sqrt(norms * jnp.sum(jnp.square(kernel), axis=0)[None] + tiny)
  cosine = jax.nn.sigmoid(x @ kernel / norms)
  margin = cosine - jax.nn.sigmoid(router["threshold"])[None]
  ids = kernels.largest_ids(margin, num_slots)
  margins = pick(margin, ids)
  # The best one is taken where none opens itself.
  rank = jnp.arange(ids.shape[1], dtype=jnp.int32)
  is_taken = (margins > 0) | ((rank == 0)[None])
  on = is_taken.astype(jnp.float32)
  on = on + (margins - lax.stop_gradient(margins)) * on
  gates = on / jnp.sum(is_taken.astype(jnp.float32), axis=1, keepdims=True)
  ids = jnp.where(is_taken, ids, NO_EXPERT)
  return Routing(ids, gates, layer.routing.probabilities)
