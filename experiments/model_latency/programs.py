"""One decoder's programs in its forms: reading a batch, and decoding.

Forms of the experts: `routed`; `masked_pairs`, where each token may use each
expert with some probability; `masked_experts`, where the first half of them may
be used; `merged`, one dense block a layer. The two masked forms are one program
with other masks.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax import models, moe
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count

ROUTED, PAIRS, HALF, MERGED = (
  "routed",
  "masked_pairs",
  "masked_experts",
  "merged",
)
FORMS = (ROUTED, PAIRS, HALF, MERGED)
BATCH = 0  # In place of a decoding batch size: the program that reads a batch.


@dataclasses.dataclass(frozen=True)
class Sizes(ranges.Checked):
  """Numbers of tokens that a program handles.

  Attributes:
    batch_size: sequences that are read at a time.
    length: tokens of each, read before the first is decoded.
    decode_batch_sizes: sequences that are decoded at a time.
    decode_steps: tokens of each, in one program.
  """

  batch_size: Count
  length: Count
  decode_batch_sizes: tuple[Count, ...]
  decode_steps: Count

  def __post_init__(self) -> None:
    """Raises a ValueError if a size is below 1 or there is none to decode."""
    super().__post_init__()
    if not self.decode_batch_sizes:
      raise ValueError("decode_batch_sizes must hold a size, got none")


class Pair(NamedTuple):
  """A model with experts and its dense form."""

  routed: models.Decoder
  merged: models.Decoder


def make_pair(config: models.DecoderConfig, implementation: str | None) -> Pair:
  """The routed and the merged form of a model with experts."""
  dense = dataclasses.replace(config, num_experts=None)
  return Pair(models.Decoder(config, implementation), models.Decoder(dense))


class Key(NamedTuple):
  """Names a program: "routed", "masked" or "merged"; BATCH or B."""

  kind: str
  batch_size: int


def kind_of(form: str) -> str:
  """The program of a form: the two masked ones share theirs."""
  return form.split("_")[0]


def compile_all(
  pair: Pair, sizes: Sizes, kinds: Sequence[str], *, threads: int = 12
) -> dict[Key, jax.stages.Compiled]:
  """Compiles every program of these kinds, in parallel.

  On a GPU that runs candidates on arrays of its own: compile before there are
  parameters.
  """
  lowered = {
    Key(kind, batch_size): lower(pair, sizes, kind, batch_size)
    for kind in kinds
    for batch_size in (BATCH, *sizes.decode_batch_sizes)
  }
  with ThreadPoolExecutor(threads) as pool:
    compiled = pool.map(lambda one: one.compile(), lowered.values())
    return dict(zip(lowered, compiled, strict=True))


def lower(
  pair: Pair, sizes: Sizes, kind: str, batch_size: int
) -> jax.stages.Lowered:
  """Traces one program, from shapes alone."""
  model = pair.merged if kind == MERGED else pair.routed
  params = jax.eval_shape(model.init, jax.random.key(0))
  reroute = None
  if kind == kind_of(PAIRS):
    reroute = jax.eval_shape(
      lambda: make_reroute(model.config, sizes, batch_size, PAIRS, 0.5)
    )
  tokens = jax.eval_shape(lambda: make_tokens(model.config, sizes, batch_size))
  if batch_size == BATCH:
    return jax.jit(batch_program(model)).lower(params, tokens, reroute)
  cache = jax.eval_shape(lambda: make_cache(model, sizes, batch_size))
  program = jax.jit(decode_program(model, sizes.length), donate_argnums=1)
  return program.lower(params, cache, tokens, reroute)


def batch_program(model: models.Decoder) -> Any:
  """(params, input_ids [B, S], reroute) -> last logits [B, V], the cache."""

  def run(params: Any, input_ids: jax.Array, reroute: Any) -> Any:
    capacity = input_ids.shape[1]
    return model.prefill(params, input_ids, capacity=capacity, reroute=reroute)

  return run


def decode_program(model: models.Decoder, length: int) -> Any:
  """(params, cache, tokens [steps, B], reroute) -> likeliest tokens, cache.

  The tokens are given, because those that a random model chooses are soon the
  same in every sequence and use the same experts. Every call begins after
  `length` tokens, so that a cache can be used again.
  """

  def run(params: Any, cache: Any, tokens: jax.Array, reroute: Any) -> Any:
    def step(cache: models.Cache, token_ids: jax.Array) -> Any:
      logits, cache = model.decode_step(
        params, cache, token_ids, reroute=reroute
      )
      return cache, jnp.argmax(logits, axis=-1)

    cache = cache._replace(length=jnp.int32(length))
    cache, chosen = lax.scan(step, cache, tokens)
    return chosen, cache

  return run


def make_tokens(
  config: models.DecoderConfig, sizes: Sizes, batch_size: int
) -> jax.Array:
  """Random tokens: [B, S] to read, or [steps, B] to decode."""
  shape = (sizes.batch_size, sizes.length)
  if batch_size != BATCH:
    shape = (sizes.decode_steps, batch_size)
  return jax.random.randint(
    jax.random.key(1), shape, 0, config.vocab_size, jnp.int32
  )


def make_cache(
  model: models.Decoder, sizes: Sizes, batch_size: int
) -> models.Cache:
  """A cache with room for everything that is decoded; zeros do."""
  capacity = sizes.length + sizes.decode_steps
  return model.init_cache(batch_size, capacity)


def make_reroute(
  config: models.DecoderConfig,
  sizes: Sizes,
  batch_size: int,
  form: str,
  active_share: float,
) -> models.Reroute | None:
  """Skips what a masked form leaves out, by masks [L, N, E]; else None."""
  if form not in (PAIRS, HALF):
    return None
  num_tokens = batch_size
  if batch_size == BATCH:
    num_tokens = sizes.batch_size * sizes.length
  shape = (config.num_layers, num_tokens, config.num_experts)
  if form == PAIRS:
    mask = jax.random.bernoulli(jax.random.key(2), active_share, shape)
  else:
    is_first = jnp.arange(config.num_experts) < max(config.num_experts // 2, 1)
    mask = jnp.broadcast_to(is_first[None, None], shape)
  return moe.mask_experts(mask)


def memory_plan(
  programs: Mapping[Key, jax.stages.Compiled], form: str
) -> dict[str, int]:
  """XLA's plan of a form's programs, bytes: inputs, outputs and temporaries.

  Returns:
    `<form>/batch_plan_bytes`, and `<form>/decode_plan_bytes` of the largest
    batch; beside each, its `temporary_bytes`.
  """
  largest = max(key.batch_size for key in programs)
  found = {}
  for name, batch_size in (("batch", BATCH), ("decode", largest)):
    plan = programs[Key(kind_of(form), batch_size)].memory_analysis()
    found[f"{form}/{name}_temporary_bytes"] = plan.temp_size_in_bytes
    found[f"{form}/{name}_plan_bytes"] = (
      plan.argument_size_in_bytes
      + plan.output_size_in_bytes
      + plan.temp_size_in_bytes
      - plan.alias_size_in_bytes
    )
  return found
