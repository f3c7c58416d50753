"""Token-choice routers: from a router's logits to a `Routing`.

Letters: N tokens, E experts, K experts per token.
"""

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax import kernels
from tanbr_jax.checks.names import check_choice
from tanbr_jax.moe.parameters import check_number, is_integer
from tanbr_jax.moe.routing import NO_EXPERT, Routing
from tanbr_jax.moe.scores import GroupLimit, limit_groups, pick

SCORES = ("softmax", "softmax_after", "sigmoid")
# Against 0/0 where all K scores underflow. Its square, which the gradient
# divides by, does not.
_TINY = 1e-18


def top_k(
  router_logits: jax.Array,
  num_selected: int,
  *,
  scores: str = "softmax",
  renormalise: bool = True,
  correction_bias: jax.Array | None = None,
  groups: GroupLimit | None = None,
  gate_scale: float = 1.0,
) -> Routing:
  """Chooses each token's `num_selected` best experts; none is dropped.

  Of two experts with the same score the first is chosen. An expert with a logit
  of -inf is closed to the token: it has probability 0 and is not chosen, and a
  pair for which no open expert is left is skipped, with a gate of 0. So a token
  whose logits are all -inf goes nowhere, and its probabilities are zeros.
  Arguments as published:

    Switch (Fedus et al., 2021): K = 1, renormalise=False
    GShard (Lepikhin et al., 2021), Mixtral (Jiang et al., 2024), Qwen3: none
    OLMoE (Muennighoff et al., 2024), Qwen1.5-MoE: renormalise=False
    GPT-OSS (2025): scores="softmax_after", the same numbers
    DeepSeek-V2 (2024): renormalise=False, groups=GroupLimit(8, 3),
      gate_scale=16
    DeepSeek-V3 (2024): scores="sigmoid", correction_bias=b,
      groups=GroupLimit(8, 4, "top2_sum"), gate_scale=2.5

  `limit_capacity` drops what is too much for an expert, `apply_mask` what is
  masked, `jitter` makes the logits or the router's input noisy.

  Args:
    router_logits: [N, E] floating.
    num_selected: K, in [1, E].
    scores: "softmax" over all experts; "softmax_after", over the chosen ones'
      logits; or "sigmoid" of each logit.
    renormalise: whether a token's gates are scaled to sum to one, or stay the
      scores. Those of "softmax_after" sum to one in any case.
    correction_bias: [E], added to the scores (the logits for "softmax_after")
      for the selection only; gates and gradients know nothing of it (Wang et
      al., auxiliary-loss-free load balancing, 2024).
    groups: limits the selection to a few groups of experts.
    gate_scale: what all gates are multiplied with at last, finite.

  Returns:
    A `Routing` with float32 gates; `probabilities` is the softmax, or the
    sigmoids divided by their sum.

  Raises:
    ValueError: if K is not an integer in [1, E] or larger than the chosen
      groups hold, `scores` is unknown, `gate_scale` is not finite, or a type, a
      shape or the groups are impossible.
  """
  _check(router_logits, num_selected, scores, correction_bias, groups)
  check_number("gate_scale", gate_scale)
  logits = router_logits.astype(jnp.float32)
  if scores == "sigmoid":
    values = jax.nn.sigmoid(logits)
    total = jnp.sum(values, axis=-1, keepdims=True)
    probabilities = values / (total + _TINY)
  else:
    probabilities = _softmax(logits)
    values = logits if scores == "softmax_after" else probabilities
  ids, is_open = _select(logits, values, num_selected, correction_bias, groups)
  gates = pick(values, ids)
  if scores == "softmax_after":
    gates = _softmax(jnp.where(is_open, gates, -jnp.inf))
  else:
    gates = jnp.where(is_open, gates, 0)
    if renormalise:
      gates = gates / (jnp.sum(gates, axis=-1, keepdims=True) + _TINY)
  ids = jnp.where(is_open, ids, NO_EXPERT)
  return Routing(ids, gates * jnp.float32(gate_scale), probabilities)


def sparsemixer(
  router_logits: jax.Array, *, tolerance: float = 0.01
) -> Routing:
  """Chooses each token's two best experts, each with a softmax of its own.

  Liu et al., SparseMixer (2023) and GRIN (2024), as Phi-3.5-MoE (2024) infers.
  A pick's gate is its share among the logits that are near: a logit counts if
  it is at most `2 tolerance` below the best, relative to the larger of the
  best and its own size. The second pick is made without the first, so that a
  token's gates sum to more than one.

  Args:
    router_logits: [N, E] floating, E at least 2.
    tolerance: half of the relative distance, at least 0.

  Returns:
    A `Routing` with K = 2 and float32 gates; `probabilities` is the softmax of
    all logits.

  Raises:
    ValueError: if there are fewer than two experts.
  """
  if router_logits.ndim != 2 or router_logits.shape[-1] < 2:
    raise ValueError(
      f"router_logits must be [N, E] with E >= 2, got {router_logits.shape}"
    )
  logits = router_logits.astype(jnp.float32)
  ids = kernels.largest_ids(lax.stop_gradient(logits), 2)
  experts = jnp.arange(logits.shape[-1], dtype=ids.dtype)
  is_first = experts[None] == ids[:, :1]

  def gate(rest: jax.Array, chosen: jax.Array) -> jax.Array:
    best = jnp.max(rest, axis=-1, keepdims=True)
    size = jnp.maximum(jnp.abs(logits), best)
    is_far = (best - logits) / size > 2 * tolerance
    return pick(jax.nn.softmax(jnp.where(is_far, -jnp.inf, rest)), chosen)

  rest = jnp.where(is_first, -jnp.inf, logits)
  gates = (gate(logits, ids[:, :1]), gate(rest, ids[:, 1:]))
  return Routing(
    ids, jnp.concatenate(gates, axis=-1), jax.nn.softmax(logits, axis=-1)
  )


def jitter(key: jax.Array, x: jax.Array, *, amount: float = 1e-2) -> jax.Array:
  """Multiplies with noise that is uniform in [1 - amount, 1 + amount].

  Fedus et al., Switch Transformers (2021), on the router's input in training.

  Args:
    key: random key, consumed.
    x: the router's input [N, D], or its logits [N, E].
    amount: the largest relative change, finite and at least 0.

  Returns:
    The shape and type of x.

  Raises:
    ValueError: if the amount is negative or not finite.
  """
  check_number("amount", amount, at_least=0)
  low, high = 1 - amount, 1 + amount
  return x * jax.random.uniform(key, x.shape, x.dtype, low, high)


def _softmax(logits: jax.Array) -> jax.Array:
  """Softmax over the last axis; zeros where all of it is -inf."""
  is_open = jnp.any(logits != -jnp.inf, axis=-1, keepdims=True)
  # The inner where keeps NaN out of the gradient too.
  shares = jax.nn.softmax(jnp.where(is_open, logits, 0), axis=-1)
  return jnp.where(is_open, shares, 0)


def _select(
  logits: jax.Array,
  values: jax.Array,
  num_selected: int,
  correction_bias: jax.Array | None,
  groups: GroupLimit | None,
) -> tuple[jax.Array, jax.Array]:
  """[N, K] int32, and [N, K] bool, whether that expert may be chosen."""
  values = lax.stop_gradient(values)
  if correction_bias is not None:
    bias = lax.stop_gradient(correction_bias).astype(jnp.float32)
    values = values + bias[None]
  values = jnp.where(logits == -jnp.inf, -jnp.inf, values)
  if groups is not None:
    values = limit_groups(values, groups)
  ids = kernels.largest_ids(values, num_selected)
  return ids, pick(values, ids) != -jnp.inf


def _check(
  router_logits: jax.Array,
  num_selected: int,
  scores: str,
  correction_bias: jax.Array | None,
  groups: GroupLimit | None,
) -> None:
  kernels.check_is_array(router_logits=router_logits)
  if router_logits.ndim != 2 or not jnp.issubdtype(
    router_logits.dtype, jnp.floating
  ):
    raise ValueError(
      "router_logits must be floating [N, E], got "
      f"{router_logits.dtype}{router_logits.shape}"
    )
  num_experts = router_logits.shape[-1]
  if not is_integer(num_selected) or not 1 <= num_selected <= num_experts:
    raise ValueError(
      "num_selected must be an integer in [1, num_experts], got "
      f"num_selected={num_selected}, num_experts={num_experts}"
    )
  check_choice("scores", scores, SCORES)
  if correction_bias is not None:
    kernels.check_is_array(correction_bias=correction_bias)
  if correction_bias is not None and correction_bias.shape != (num_experts,):
    raise ValueError(
      "correction_bias must be [num_experts], got "
      f"{correction_bias.shape}, num_experts={num_experts}"
    )
  if groups is not None:
    open_to_token = (
      num_experts // max(groups.num_groups, 1) * groups.num_selected
    )
    if num_selected > open_to_token > 0:
      raise ValueError(
        "num_selected must be at most what the chosen groups hold, got "
        f"num_selected={num_selected}, {groups}, num_experts={num_experts}"
      )
