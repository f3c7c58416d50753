"""The least that a whole decoder must do: bytes that move, operations.

Every weight in use is read once a step, every cached key and value once;
embedding rows, activations and norms are left out. A step of few tokens uses
few experts: how many is expected of a router that spreads tokens evenly, as one
with random weights about does.

Letters: B sequences, D model width, E experts, F hidden width, K experts per
token, S positions before a step.
"""

import jax.numpy as jnp

from experiments.kernels.shapes import Work
from experiments.model_latency.programs import (
  BATCH,
  HALF,
  MERGED,
  PAIRS,
  Sizes,
)
from tanbr_jax.models import DecoderConfig


def work(
  config: DecoderConfig,
  sizes: Sizes,
  form: str,
  batch_size: int,
  *,
  active_share: float,
) -> Work:
  """The least work to read a batch, or to decode a token of each sequence.

  Args:
    config: of the routed model.
    sizes: of the run.
    form: of the experts.
    batch_size: BATCH, or B.
    active_share: of the token-expert pairs that `masked_pairs` keeps.
  """
  item = jnp.dtype(config.dtype).itemsize
  is_batch = batch_size == BATCH
  sequences = sizes.batch_size if is_batch else batch_size
  tokens = sequences * (sizes.length if is_batch else 1)
  pairs, active = experts_in_use(config, form, tokens, active_share)
  one, dense = expert_parameters(config), dense_parameters(config)
  head = config.vocab_size * config.model_dim
  # Positions that a token sees, itself included, on average.
  seen = (sizes.length + 1) / 2
  if not is_batch:
    seen = sizes.length + (sizes.decode_steps + 1) / 2
  # A batch's keys and values are written once; a step reads all before it.
  cached = (sizes.length if is_batch else seen) * sequences
  width = config.num_kv_heads * config.head_dim
  num_bytes = item * (
    config.num_layers * (dense + active * one + 2 * cached * width) + head
  )
  scores = 2 * seen * config.num_heads * config.head_dim
  layer = tokens * (dense + scores) + pairs * one
  flops = 2 * (config.num_layers * layer + sequences * head)
  return Work(num_bytes, flops)


def merging_work(config: DecoderConfig) -> Work:
  """One merge of every layer: experts read once, one block written."""
  item = jnp.dtype(config.dtype).itemsize
  matrices = config.num_layers * expert_parameters(config)
  return Work(item * (config.num_experts + 1) * matrices)


def experts_in_use(
  config: DecoderConfig, form: str, tokens: int, active_share: float
) -> tuple[float, float]:
  """Token-expert pairs and experts in use in one layer, as expected."""
  if form == MERGED:
    return tokens, 1
  experts = config.num_experts
  share = active_share if form == PAIRS else 1.0
  allowed = max(experts // 2, 1) if form == HALF else experts
  # A token uses an allowed expert with this probability.
  probability = share * config.num_selected / experts
  in_use = allowed * (1 - (1 - probability) ** tokens)
  return tokens * allowed * probability, in_use


def expert_parameters(config: DecoderConfig) -> int:
  """Parameters of one expert."""
  return (2 + config.is_gated) * config.model_dim * config.expert_dim


def dense_parameters(config: DecoderConfig) -> int:
  """Parameters of one layer without its routed experts and its router."""
  heads = 2 * config.num_heads + 2 * config.num_kv_heads
  shared = (2 + config.is_gated) * (config.shared_dim or 0)
  return config.model_dim * (heads * config.head_dim + shared)
