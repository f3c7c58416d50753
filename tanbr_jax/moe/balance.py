"""Losses that keep a router's load even and its logits small.

Letters: N tokens, E experts, K experts per token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.moe.routing import Routing
from tanbr_jax.moe.seam import MoeInput, MoeOutput
from tanbr_jax.moe.statistics import usage


class RouterLosses(NamedTuple):
  """Losses of one layer's router, each [] float32.

  Attributes:
    load_balance: `load_balance_loss`.
    z: `z_loss`.
  """

  load_balance: jax.Array
  z: jax.Array


def observe_losses(
  tree: tuple[()], layer: MoeInput, output: MoeOutput
) -> RouterLosses:
  """For `observe=Partial(observe_losses, ())`, in training."""
  del tree, output
  return RouterLosses(
    load_balance_loss(layer.routing), z_loss(layer.router_logits)
  )


def load_balance_loss(routing: Routing) -> jax.Array:
  """E times sum_e (share of choices)_e (mean probability)_e; 1 if balanced.

  Fedus et al., Switch Transformers (2021), equation 4, over all K choices (as
  GShard, Mixtral's code and OLMoE have it, divided by K). The shares carry no
  gradient; the probabilities do.
  """
  mean_probability = jnp.mean(routing.probabilities, axis=0)
  return jnp.vdot(usage(routing), mean_probability) * jnp.float32(
    mean_probability.size
  )


def z_loss(router_logits: jax.Array) -> jax.Array:
  """Mean squared log-partition of [N, E] logits; keeps them small.

  Zoph et al., ST-MoE (2022), equation 5.
  """
  logits = router_logits.astype(jnp.float32)
  return jnp.mean(jnp.square(jax.nn.logsumexp(logits, axis=-1)))


def update_correction_bias(
  correction_bias: jax.Array, routing: Routing, *, rate: float = 1e-3
) -> jax.Array:
  """Raises the bias of experts with less than an even share, lowers others.

  Wang et al., auxiliary-loss-free load balancing (2024), algorithm 1, which
  DeepSeek-V3 trains with.

  Args:
    correction_bias: [E], what `top_k` selected with.
    routing: what it chose.
    rate: how far each bias moves.

  Returns:
    [E], the bias of the next step.
  """
  shares = usage(routing)
  missing = jnp.mean(shares) - shares
  step = jnp.float32(rate) * jnp.sign(missing)
  return correction_bias + step.astype(correction_bias.dtype)
