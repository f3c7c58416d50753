"""How many experts are active: pairs, and distinct experts that are read.

Letters: N tokens, E experts, K experts per token, S steps.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.checks.ranges import Range
from tanbr_jax.masking.mask_router import MaskRouter, mask_logits
from tanbr_jax.moe import MoeInput, MoeOutput, load_balance_loss
from tanbr_jax.moe.routing import is_active, is_expert


class Activity(NamedTuple):
  """Sums over a batch; those of several batches add up.

  Attributes:
    num_tokens: [] float32, tokens that are not padding.
    num_pairs: [] float32, their pairs with an expert and a gate that is not 0.
    num_by_rank: [K] float32, the same by the expert's rank among the K.
    num_by_expert: [E] float32, the same by expert.
    num_steps: [] float32, the steps, see `observe_activity`.
    num_distinct: [] float32, different experts of each step, summed.
  """

  num_tokens: jax.Array
  num_pairs: jax.Array
  num_by_rank: jax.Array
  num_by_expert: jax.Array
  num_steps: jax.Array
  num_distinct: jax.Array

  @property
  def mean_active(self) -> jax.Array:
    """Experts per token."""
    return self.num_pairs / jnp.maximum(self.num_tokens, 1)

  @property
  def mean_distinct(self) -> jax.Array:
    """Distinct experts per step."""
    return self.num_distinct / jnp.maximum(self.num_steps, 1)


class MaskLosses(NamedTuple):
  """What training with masks needs of a layer, each [] float32.

  Attributes:
    mean: `regulariser` of the masks.
    mean_square: the same of the masks' squares (an ablation).
    load_balance: of the primary router, as if nothing was masked.
    num_active: experts per token whose mask is on.
  """

  mean: jax.Array
  mean_square: jax.Array
  load_balance: jax.Array
  num_active: jax.Array


def observe_activity(num_steps: int = 1) -> Partial:
  """An observer of a layer's `Activity`.

  Args:
    num_steps: S, a divisor of N, if the batch stands for as many decoding
      steps: token n is of step n modulo S, as tokens [B, S] are when they are
      flat. With one, all tokens are of one step.

  Raises:
    ValueError: if S is no positive integer; when it runs, if S does not divide
      N.
  """
  Range(1).check("num_steps", num_steps, is_integer=True)
  return Partial(_activity_of(num_steps))


def by_step(values: jax.Array, num_steps: int) -> jax.Array:
  """Returns [S, N / S, ...] of [N, ...], see `observe_activity`.

  Raises:
    ValueError: if S does not divide N.
  """
  if values.shape[0] % num_steps:
    raise ValueError(
      "num_steps must divide the number of tokens, got "
      f"num_steps={num_steps}, tokens={values.shape[0]}"
    )
  return values.reshape(-1, num_steps, *values.shape[1:]).swapaxes(0, 1)


def regulariser(masks: jax.Array, is_pair: jax.Array) -> jax.Array:
  """Mean of m^ [N, K] over the pairs [N, K] bool, 0 of none.

  Its mean over layers is L_reg of BEAM; the mean over tokens and layers is our
  reading. Padding, and what the router itself skips, is no pair.
  """
  total = jnp.sum(jnp.where(is_pair, masks, 0))
  return total / jnp.maximum(jnp.sum(is_pair, dtype=jnp.float32), 1)


def observe_masks(
  mask_router: MaskRouter, layer: MoeInput, output: MoeOutput
) -> MaskLosses:
  """For `observe=Partial(observe_masks, mask_router)`, in training.

  With a reroute of `beam_in_training`, whose pairs are still all there.
  """
  del output
  masks = jax.nn.sigmoid(mask_logits(mask_router, layer))
  is_pair = is_active(layer.routing) & layer.token_mask[:, None]
  is_on = is_pair & (layer.routing.gates != 0)
  num_tokens = jnp.sum(layer.token_mask, dtype=jnp.float32)
  num_on = jnp.sum(is_on, dtype=jnp.float32)
  return MaskLosses(
    mean=regulariser(masks, is_pair),
    mean_square=regulariser(jnp.square(masks), is_pair),
    load_balance=load_balance_loss(layer.routing, layer.token_mask),
    num_active=num_on / jnp.maximum(num_tokens, 1),
  )


@functools.cache
def _activity_of(num_steps: int) -> functools.partial:
  return functools.partial(_activity, num_steps=num_steps)


def _activity(
  layer: MoeInput, output: MoeOutput, *, num_steps: int
) -> Activity:
  del output
  routing = layer.routing
  is_on = is_active(routing) & layer.token_mask[:, None]
  is_on &= routing.gates != 0
  is_used = jnp.any(is_expert(routing) & is_on[:, :, None], axis=1)
  is_read = jnp.any(by_step(is_used, num_steps), axis=1)
  total = lambda x, axis=None: jnp.sum(x, axis, dtype=jnp.float32)  # noqa: E731
  pairs = is_expert(routing) & is_on[:, :, None]
  return Activity(
    num_tokens=total(layer.token_mask),
    num_pairs=total(is_on),
    num_by_rank=total(is_on, 0),
    num_by_expert=total(pairs, (0, 1)),
    num_steps=jnp.float32(num_steps),
    num_distinct=total(is_read),
  )
