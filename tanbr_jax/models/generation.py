"""Text after prompts: all of it in one compiled program.

Letters: B sequences, S tokens of a prompt, N new tokens, V here the vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Chance, Count, NonNegative, Whole
from tanbr_jax.models.base import Generator, Params, Reroute


class _Choice(NamedTuple):
  """How the next token is chosen; None is greedy, or no limit."""

  temperature: jax.Array | None
  top_p: jax.Array | None


class _State(NamedTuple):
  step: jax.Array  # [], tokens written
  cache: Any
  token_ids: jax.Array  # [B], the last ones
  has_ended: jax.Array  # [B]
  out: jax.Array  # [B, N]


@ranges.checked
def generate(
  model: Generator,
  params: Params,
  input_ids: jax.Array,
  *,
  attention_mask: jax.Array | None = None,
  max_new_tokens: Count,
  temperature: NonNegative = 0.0,
  top_k: Count | None = None,
  top_p: Chance | None = None,
  key: jax.Array | None = None,
  eos_token_ids: Sequence[int] | None = None,
  pad_token_id: Whole | None = None,
  reroute: Reroute | None = None,
) -> jax.Array:
  """Continues prompts token by token.

      model = models.Decoder(models.preset("tiny"))
      params = model.init(jax.random.key(0))
      dense, merged = models.merge(model, params, jnp.full(4, 0.25))
      prompts = jnp.array([[5, 6, 7], [0, 8, 9]])
      mask = jnp.array([[1, 1, 1], [0, 1, 1]])
      new_ids = models.generate(
        dense, merged, prompts, attention_mask=mask, max_new_tokens=8
      )

  Prompts are read in one pass and the rest decoded with the cache, until every
  sequence has ended. One that has costs no experts. A second call with the
  same shapes and settings does not compile.

  Args:
    model: one that decodes, of experts or merged.
    params: its parameters.
    input_ids: [B, S] integer tokens.
    attention_mask: [B, S], False or 0 for the padding of shorter prompts, on
      the left or on the right; None for none.
    max_new_tokens: N.
    temperature: 0 takes the likeliest token; a positive number divides the
      logits, of which tokens are then drawn.
    top_k: draws from that many of the likeliest tokens; None for all.
    top_p: draws from the likeliest tokens that together have at least this
      probability, those left by `top_k` (Holtzman et al., 2020); None for all.
    key: random key, consumed; needed if tokens are drawn.
    eos_token_ids: tokens that end a sequence; None for those that the
      checkpoint's generation_config.json or config.json names, if there is one.
    pad_token_id: what follows the end; None for the checkpoint's, else the
      first of `eos_token_ids`, else 0.
    reroute: chooses experts in the routers' place, see `moe.seam`.

  Returns:
    [B, N] int32, the new tokens alone, padded after the end of a sequence.

  Raises:
    ValueError: before anything is computed, if the model does not decode, a
      prompt is empty, tokens are none of the vocabulary, prompt and new tokens
      do not fit into the context, or a setting is out of range or has no
      effect.
  """
  input_ids = jnp.asarray(input_ids)
  _check_model(model)
  _check_prompts(model, input_ids, attention_mask, max_new_tokens)
  vocab_size = model.config.vocab_size
  ends = eos_token_ids
  if ends is None:
    ends = _of_checkpoint(model, "eos_token_id")
  pad = pad_token_id
  if pad is None:
    pad = (*_of_checkpoint(model, "pad_token_id"), *ends, 0)[0]
  for name, tokens in (("eos_token_ids", ends), ("pad_token_id", [pad])):
    _check_tokens(name, np.asarray(tokens, np.int64), vocab_size)
  is_drawn = isinstance(temperature, jax.core.Tracer) or temperature > 0
  _check_drawing(is_drawn, key, top_k, top_p, vocab_size)
  return _generate(
    model,
    params,
    input_ids.astype(jnp.int32),
    None if attention_mask is None else jnp.asarray(attention_mask),
    jnp.asarray(tuple(ends), jnp.int32),
    jnp.int32(pad),
    _Choice(
      jnp.float32(temperature) if is_drawn else None,
      None if top_p is None else jnp.float32(top_p),
    ),
    key,
    reroute,
    max_new_tokens=max_new_tokens,
    top_k=top_k,
  )


@functools.partial(
  jax.jit, static_argnames=("model", "max_new_tokens", "top_k")
)
def _generate(
  model: Generator,
  params: Params,
  input_ids: jax.Array,
  attention_mask: jax.Array | None,
  ends: jax.Array,
  pad: jax.Array,
  choice: _Choice,
  key: jax.Array | None,
  reroute: Reroute | None,
  *,
  max_new_tokens: int,
  top_k: int | None,
) -> jax.Array:
  batch_size, length = input_ids.shape

  def extend(state: _State, logits: jax.Array) -> _State:
    """Writes one more token of each sequence."""
    tokens = _choose(key, state.step, logits, choice, top_k)
    tokens = jnp.where(state.has_ended, pad, tokens)
    is_end = jnp.any(tokens[:, None] == ends[None], axis=1)
    zero = jnp.zeros((), state.step.dtype)
    return _State(
      state.step + 1,
      state.cache,
      tokens,
      state.has_ended | is_end,
      lax.dynamic_update_slice(state.out, tokens[:, None], (zero, state.step)),
    )

  def is_open(state: _State) -> jax.Array:
    return (state.step < max_new_tokens) & ~jnp.all(state.has_ended)

  def decode(state: _State) -> _State:
    logits, cache = model.decode_step(
      params,
      state.cache,
      state.token_ids,
      attention_mask=~state.has_ended,
      reroute=reroute,
    )
    return extend(state._replace(cache=cache), logits)

  # The last token is chosen and never read.
  logits, cache = model.prefill(
    params,
    input_ids,
    capacity=length + max_new_tokens - 1,
    attention_mask=attention_mask,
    reroute=reroute,
  )
  state = _State(
    jnp.zeros((), jnp.int32),
    cache,
    jnp.zeros(batch_size, jnp.int32),
    jnp.zeros(batch_size, bool),
    jnp.full((batch_size, max_new_tokens), pad),
  )
  return lax.while_loop(is_open, decode, extend(state, logits)).out


def _choose(
  key: jax.Array | None,
  step: jax.Array,
  logits: jax.Array,
  choice: _Choice,
  top_k: int | None,
) -> jax.Array:
  """The next token of each sequence, [B] int32."""
  if choice.temperature is None:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  logits = likeliest(logits / choice.temperature, top_k, choice.top_p)
  step_key = jax.random.fold_in(key, step)
  return jax.random.categorical(step_key, logits).astype(jnp.int32)


def likeliest(
  logits: jax.Array, top_k: int | None, top_p: jax.Array | None
) -> jax.Array:
  """Returns logits [..., V] with minus infinity for tokens that are left out.

  Args:
    logits: [..., V].
    top_k: how many are kept, None for all; ties with the last one are kept.
    top_p: the probability that those kept have at least, None for all.
  """
  if top_k is not None:
    last = lax.top_k(logits, top_k)[0][..., -1:]
    logits = jnp.where(logits < last, -jnp.inf, logits)
  if top_p is not None:
    falling = -jnp.sort(-logits, axis=-1)
    shares = jax.nn.softmax(falling)
    before = jnp.cumsum(shares, axis=-1) - shares
    # The likeliest one is always kept.
    kept = jnp.where(before < top_p, falling, falling[..., :1])
    last = jnp.min(kept, axis=-1, keepdims=True)
    logits = jnp.where(logits < last, -jnp.inf, logits)
  return logits


def _of_checkpoint(model: Any, name: str) -> tuple[int, ...]:
  """Its tokens of that name; some files say -1 for none."""
  origin = getattr(model, "origin", None)
  found = () if origin is None else origin.token_ids(name)
  return tuple(t for t in found if 0 <= t < model.config.vocab_size)


def _check_model(model: Any) -> None:
  if not hasattr(model, "decode_step"):
    raise ValueError(
      "model must decode token by token (models.Generator), got "
      f"{type(model).__name__}"
    )


def _check_prompts(
  model: Generator,
  input_ids: jax.Array,
  attention_mask: jax.Array | None,
  max_new_tokens: int,
) -> None:
  """Refuses prompts that cannot be continued."""
  shape, longest = input_ids.shape, model.config.context
  if (
    len(shape) != 2
    or 0 in shape
    or not jnp.issubdtype(input_ids.dtype, jnp.integer)
  ):
    raise ValueError(
      "input_ids must be integer [B, S] with B, S >= 1, got "
      f"{input_ids.dtype}{shape}"
    )
  if longest is not None and shape[1] + max_new_tokens > longest:
    raise ValueError(
      "prompt and new tokens must fit into the context, got "
      f"length={shape[1]}, max_new_tokens={max_new_tokens}, context={longest}"
    )
  if not isinstance(input_ids, jax.core.Tracer):
    _check_tokens("input_ids", np.asarray(input_ids), model.config.vocab_size)
  if attention_mask is None or isinstance(attention_mask, jax.core.Tracer):
    return
  mask = np.asarray(attention_mask).astype(bool)
  if mask.shape == shape and not mask.any(axis=1).all():
    raise ValueError(
      "each prompt must have a token, got attention_mask without one in row "
      f"{int(np.argmin(mask.any(axis=1)))}"
    )


def _check_tokens(name: str, tokens: np.ndarray, vocab_size: int) -> None:
  outside = tokens[(tokens < 0) | (tokens >= vocab_size)]
  if outside.size:
    raise ValueError(
      f"{name} must be in [0, vocab_size={vocab_size}), got {outside[0]}"
    )


def _check_drawing(
  is_drawn: bool,
  key: jax.Array | None,
  top_k: int | None,
  top_p: float | None,
  vocab_size: int,
) -> None:
  if is_drawn and key is None:
    raise ValueError("temperature > 0 needs a key, got key=None")
  if not is_drawn and not (key is None and top_k is None and top_p is None):
    raise ValueError(
      "key, top_k and top_p need a temperature > 0, got temperature=0 with "
      f"key={'None' if key is None else 'given'}, top_k={top_k}, top_p={top_p}"
    )
  if top_k is not None and top_k > vocab_size:
    raise ValueError(
      f"top_k must be at most vocab_size={vocab_size}, got top_k={top_k}"
    )
