"""Losses that keep a router's load even and its logits small.

Letters: N tokens, E experts, K experts per token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.moe.parameters import check_number
from tanbr_jax.moe.routing import Routing, all_tokens, is_active
from tanbr_jax.moe.seam import MoeInput, MoeOutput
from tanbr_jax.moe.statistics import expert_statistics, usage


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
    load_balance_loss(layer.routing, layer.token_mask),
    z_loss(layer.router_logits, layer.token_mask),
  )


def load_balance_loss(
  routing: Routing, token_mask: jax.Array | None = None
) -> jax.Array:
  """E times sum_e (share of choices)_e (mean probability)_e; 1 if balanced.

  Fedus et al., Switch Transformers (2021), equation 4, over all K choices (as
  GShard, Mixtral's code and OLMoE have it, divided by K). The shares carry no
  gradient; the probabilities do.

  Args:
    routing: of N tokens; the loss of no token is zero.
    token_mask: [N] bool, False for padding, which is left out. None leaves out
      the tokens all of whose pairs are skipped, as those of padding are.
  """
  if token_mask is None:
    token_mask = jnp.any(is_active(routing), axis=-1)
  found = expert_statistics(routing, token_mask)
  num_tokens = jnp.maximum(found.num_tokens.astype(jnp.float32), 1)
  shares = usage(routing, token_mask)
  num_experts = jnp.float32(shares.size)
  return num_experts * jnp.vdot(shares, found.probability / num_tokens)


def z_loss(
  router_logits: jax.Array, token_mask: jax.Array | None = None
) -> jax.Array:
  """Mean squared log-partition of [N, E] logits; keeps them small.

  Zoph et al., ST-MoE (2022), equation 5.

  Args:
    router_logits: [N, E]; the loss of no token is zero. A token whose logits
      are all -inf is left out.
    token_mask: [N] bool, False for padding, which is left out; None for none.
  """
  token_mask = all_tokens(token_mask, router_logits.shape[0])
  token_mask &= jnp.any(router_logits != -jnp.inf, axis=-1)
  # Not the padding's own values, whose gradients would be multiplied by zero.
  logits = jnp.where(token_mask[:, None], router_logits.astype(jnp.float32), 0)
  squares = jnp.square(jax.nn.logsumexp(logits, axis=-1))
  total = jnp.sum(jnp.where(token_mask, squares, 0))
  return total / jnp.maximum(jnp.sum(token_mask, dtype=jnp.float32), 1)


def update_correction_bias(
  correction_bias: jax.Array,
  routing: Routing,
  *,
  rate: float = 1e-3,
  token_mask: jax.Array | None = None,
) -> jax.Array:
  """Raises the bias of experts with less than an even share, lowers others.

  Wang et al., auxiliary-loss-free load balancing (2024), algorithm 1, which
  DeepSeek-V3 trains with.

  Args:
    correction_bias: [E], what `top_k` selected with.
    routing: what it chose.
    rate: how far each bias moves; finite.
    token_mask: [N] bool, False for padding, which is left out; None for none.

  Returns:
    [E], the bias of the next step.

  Raises:
    ValueError: if the bias is not [E] or the rate not finite.
  """
  check_number("rate", rate)
  shares = usage(routing, token_mask)
  if correction_bias.shape != shares.shape:
    raise ValueError(
      f"correction_bias must be [E] = {list(shares.shape)}, got "
      f"{correction_bias.shape}"
    )
  missing = jnp.mean(shares) - shares
  step = jnp.float32(rate) * jnp.sign(missing)
  return correction_bias + step.astype(correction_bias.dtype)
