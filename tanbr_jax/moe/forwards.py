"""Four forwards over the same experts: routed, masked, merged and soft.

All take (experts, x, shares), where the shares say what each expert gives: a
`Routing`, merge weights, or weights for each token. Letters: N tokens, E
experts, K experts per token, D model width, F hidden width, R merges at once.
"""

import functools

import jax
import jax.numpy as jnp

from tanbr_jax import kernels
from tanbr_jax.moe import feed_forward
from tanbr_jax.moe.expert_merging import merge
from tanbr_jax.moe.experts import Experts
from tanbr_jax.moe.parameters import check_arrays, check_type
from tanbr_jax.moe.routing import Routing, apply_mask, check_shapes


def routed(
  experts: Experts,
  x: jax.Array,
  routing: Routing,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Sends each token to its K experts and adds their outputs by gate.

  The pairs of token and expert are sorted by expert and multiplied group by
  group. A skipped pair (`NO_EXPERT`, or any id outside [0, E)) costs nothing
  and adds nothing; a token without experts gets zeros, plus the shared block.
  An expert that no token chose is not read.

  Args:
    experts: E stacked experts.
    x: [..., D], N tokens of the experts' type.
    routing: of these N tokens, in x's order.
    implementation: of `kernels.grouped_ffn`; "xla" is the reference for all
      parts of the forward.

  Returns:
    The shape and type of x.

  Raises:
    ValueError: if shapes disagree, the activation is unknown or the
      implementation cannot run.
  """
  return _routed(experts, x, routing, implementation)[0]


def routed_pairs(
  experts: Experts,
  x: jax.Array,
  routing: Routing,
  *,
  implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """`routed`, and what each expert gave for each of its tokens.

  Args:
    experts: E stacked experts.
    x: [..., D], N tokens of the experts' type.
    routing: of these N tokens, in x's order.
    implementation: as for `routed`.

  Returns:
    The output of `routed`, and [N, K, D] of x's type, the experts' outputs
    before their gates; zeros for skipped pairs.

  Raises:
    ValueError: as `routed`.
  """
  out, rows, place = _routed(experts, x, routing, implementation)
  # A skipped pair's place is past the last row.
  return out, rows.at[place].get(mode="fill", fill_value=0)


def _routed(
  experts: Experts,
  x: jax.Array,
  routing: Routing,
  implementation: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The output, the pairs' outputs [N * K, D] by expert, the pairs' rows."""
  tokens = _tokens(experts, x)
  check_shapes(
    routing, num_tokens=tokens.shape[0], num_experts=experts.num_experts
  )
  # What else can be named are implementations of the products only.
  moves = "xla" if implementation == "xla" else None
  permutation = kernels.sort_by_group(
    routing.expert_ids, experts.num_experts, implementation=moves
  )
  rows = kernels.dispatch(tokens, permutation, implementation=moves)
  rows = _grouped(experts, rows, permutation.group_sizes, implementation)
  out = kernels.combine(rows, permutation, routing.gates, implementation=moves)
  out = feed_forward.add_shared(out.reshape(x.shape), experts, x)
  return out, rows, permutation.place


def masked(
  experts: Experts,
  x: jax.Array,
  routing: Routing,
  mask: jax.Array | None = None,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """`routed` without the pairs that are masked out; time follows the others.

  Args:
    experts: E stacked experts.
    x: [..., D], N tokens of the experts' type.
    routing: of these N tokens; ids of `NO_EXPERT` are masked out already.
    mask: [N, E] bool, or [E] for all tokens; False is masked out.
    implementation: as for `routed`.

  Returns:
    The shape and type of x. Gates are not scaled up for what is lost.

  Raises:
    ValueError: as `routed`, and if the mask is of another shape or type.
  """
  if mask is not None:
    routing = apply_mask(routing, mask)
  return routed(experts, x, routing, implementation=implementation)


def merged(
  experts: Experts,
  x: jax.Array,
  merge_weights: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Merges the experts into one block and applies it to all tokens.

  To serve many batches with the same weights, call `merge` once and `apply`
  for each batch.

  Args:
    experts: E stacked experts.
    x: [..., D] of the experts' type.
    merge_weights: floating [E], or [R, E]: R merges of the same experts, which
      are read once, over the same x.
    implementation: of `kernels.weighted_sum`.

  Returns:
    The shape and type of x, with a leading axis of R for [R, E] weights.

  Raises:
    ValueError: if shapes disagree, the activation is unknown or the
      implementation cannot run.
  """
  block = merge(experts, merge_weights, implementation=implementation)
  if merge_weights.ndim == 1:
    return feed_forward.apply(block, x)
  return feed_forward.apply_all(block, x)


def soft(
  experts: Experts,
  x: jax.Array,
  weights: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Applies all experts to all tokens and adds their outputs by weight.

  All experts are read: a NaN in one of them reaches every token, whatever its
  weight. Takes E times the FLOPs of one expert and an array [E, N, F].

  Args:
    experts: E stacked experts.
    x: [..., D], N tokens of the experts' type.
    weights: [N, E], each expert's share in each token's output.
    implementation: None or "xla", the only one.

  Returns:
    The shape and type of x.

  Raises:
    ValueError: if shapes disagree, or the activation or the implementation is
      unknown.
  """
  if implementation not in (None, "xla"):
    raise ValueError(
      "implementation must be None or 'xla', got "
      f"implementation={implementation!r}"
    )
  kernels.check_is_array(weights=weights)
  tokens = _tokens(experts, x)
  shape = (tokens.shape[0], experts.num_experts)
  if weights.shape != shape:
    raise ValueError(
      f"weights must be [N, E] = {shape}, got weights {weights.shape}"
    )
  own = feed_forward.without_shared(experts)
  hidden = _all_hidden(own, tokens)
  hidden *= weights.astype(hidden.dtype).T[:, :, None]
  out = jnp.einsum("enf,efd->nd", hidden.astype(x.dtype), own.w_out)
  if own.b_out is not None:
    out += weights.astype(x.dtype) @ own.b_out
  return feed_forward.add_shared(out.reshape(x.shape), experts, x)


def _tokens(experts: Experts, x: jax.Array) -> jax.Array:
  """[N, D] of x [..., D]."""
  kernels.check_is_array(x=x)
  check_arrays(experts)
  model_dim = experts.w_in.shape[1]
  if x.shape[-1:] != (model_dim,):
    raise ValueError(f"x must be [..., D] for D={model_dim}, got x {x.shape}")
  check_type(experts, x)
  return x.reshape(-1, model_dim)


def _all_hidden(experts: Experts, x: jax.Array) -> jax.Array:
  """[E, N, F] of x [N, D], at least float32."""
  # Copies of x and not one product of x with all matrices, which XLA would
  # copy side by side for it.
  copies = jnp.broadcast_to(x[None], (experts.num_experts, *x.shape))
  hidden, gate = _all_affine(copies, experts.w_in, experts.b_in), None
  if experts.w_gate is not None:
    gate = _all_affine(copies, experts.w_gate, experts.b_gate)
  return kernels.activate(experts.activation, hidden, gate)


def _all_affine(x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
  """[E, N, F] of x [E, N, D]."""
  out = jnp.einsum("end,edf->enf", x, w)
  return out if b is None else out + b[:, None]


def _grouped(
  experts: Experts,
  rows: jax.Array,
  group_sizes: jax.Array,
  implementation: str | None,
) -> jax.Array:
  """The experts' outputs for rows sorted by expert; the tail is undefined."""
  add_bias = functools.partial(_add_bias, group_sizes=group_sizes)
  if experts.b_in is None and experts.b_gate is None:
    out = kernels.grouped_ffn(
      rows,
      experts.w_in,
      experts.w_out,
      group_sizes,
      w_gate=experts.w_gate,
      activation=experts.activation,
      zero_tail=False,
      implementation=implementation,
    )
    return add_bias(out, experts.b_out)
  product = functools.partial(
    kernels.grouped_matmul,
    group_sizes=group_sizes,
    implementation=implementation,
  )
  hidden, gate = add_bias(product(rows, experts.w_in), experts.b_in), None
  if experts.w_gate is not None:
    gate = add_bias(product(rows, experts.w_gate), experts.b_gate)
  hidden = kernels.activate(experts.activation, hidden, gate)
  return add_bias(
    product(hidden.astype(rows.dtype), experts.w_out), experts.b_out
  )


def _add_bias(
  rows: jax.Array, bias: jax.Array | None, group_sizes: jax.Array
) -> jax.Array:
  """Adds each group's bias [E, F] to its rows [M, F]; none in the tail."""
  if bias is None:
    return rows
  row = jnp.arange(rows.shape[0], dtype=group_sizes.dtype)
  group = jnp.searchsorted(
    jnp.cumsum(group_sizes), row, side="right", method="compare_all"
  )
  # Gathered and not a one-hot product, so that an unused expert is not read.
  return rows + bias.at[group].get(mode="fill", fill_value=0)
