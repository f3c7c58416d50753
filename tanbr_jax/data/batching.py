"""Windows of text, drawn inside jitted programs.

Letters: V tasks, N tokens of text, B windows, S tokens of context. Bytes are
the tokens of the byte model; text of other tokens is a wider type of integers.
In text of signed integers a token may be there to be read and not to be
scored, as those of a prompt are: token t is then stored as -1 - t.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TaskText:
  """The text of V tasks in one array.

  Attributes:
    tokens: [V, N] integers; a task's text, then zeros.
    lengths: [V] int32, the tokens of text of each task.
    stride: windows start at its multiples; static.
  """

  tokens: jax.Array
  lengths: jax.Array
  stride: int = dataclasses.field(default=1, metadata={"static": True})


class Windows(NamedTuple):
  """Windows as models take them.

  Attributes:
    inputs: [..., S] int32, what is read.
    targets: [..., S] int32, what is predicted.
    is_scored: [..., S] bool, which predictions count; None for all.
    is_text: [..., S] bool, which inputs are no padding, that is which have
      something to score behind them; None for all.
  """

  inputs: jax.Array
  targets: jax.Array
  is_scored: jax.Array | None = None
  is_text: jax.Array | None = None


def token_ids(tokens: jax.Array) -> jax.Array:
  """The tokens int32, scored or not, of any shape."""
  ids = tokens.astype(jnp.int32)
  if jnp.issubdtype(tokens.dtype, jnp.signedinteger):
    ids = jnp.where(ids < 0, ~ids, ids)
  return ids


def read_windows(windows: jax.Array) -> Windows:
  """Splits windows [..., S + 1] of text into inputs and targets."""
  ids = token_ids(windows)
  inputs, targets = ids[..., :-1], ids[..., 1:]
  if not jnp.issubdtype(windows.dtype, jnp.signedinteger):
    return Windows(inputs, targets)
  is_scored = windows[..., 1:] >= 0
  is_text = jax.lax.cummax(
    is_scored.astype(jnp.int32), axis=is_scored.ndim - 1, reverse=True
  )
  return Windows(inputs, targets, is_scored, is_text > 0)


def from_arrays(
  arrays: Sequence[np.ndarray], *, min_length: int = 1, stride: int = 1
) -> TaskText:
  """Pads the text of each task to the longest.

  Args:
    arrays: V arrays [N_v] of one integer type, such as
      `corpus.splits["train"]`.
    min_length: fewest tokens of a task: the length of the windows to be drawn,
      which cannot be checked when they are.
    stride: of the windows' starts.

  Raises:
    ValueError: no text, text of another type, or too short.
  """
  arrays = [np.asarray(text) for text in arrays]
  kinds = [f"{text.dtype}{list(text.shape)}" for text in arrays]
  if (
    len({text.dtype for text in arrays}) != 1
    or arrays[0].dtype.kind not in "iu"
    or any(text.ndim != 1 for text in arrays)
  ):
    raise ValueError(
      f"text must be arrays [N] of one type of integers, got {kinds}"
    )
  lengths = [text.size for text in arrays]
  if min(lengths) < min_length:
    raise ValueError(
      f"each task needs at least {min_length} tokens, got {lengths}"
    )
  padded = np.zeros((len(arrays), max(lengths)), arrays[0].dtype)
  for row, text in zip(padded, arrays, strict=True):
    row[: text.size] = text
  return TaskText(jnp.asarray(padded), jnp.asarray(lengths, jnp.int32), stride)


def _check_length(length: int, size: int) -> None:
  if not 1 <= length <= size:
    raise ValueError(
      f"length of a window must be in [1, {size}], got length={length}"
    )


def sample_windows(
  key: jax.Array, text: jax.Array, num: int, length: int
) -> jax.Array:
  """Draws windows of one text, uniformly over all that fit.

  Args:
    key: random key, consumed.
    text: [N] integers.
    num: number of windows.
    length: tokens of a window, at most N.

  Returns:
    [num, length] of the text's type.
  """
  _check_length(length, text.shape[0])
  starts = jax.random.randint(
    key, (num,), 0, text.shape[0] - length + 1, jnp.int32
  )
  return text[starts[:, None] + jnp.arange(length, dtype=jnp.int32)[None, :]]


def sample_task_windows(
  key: jax.Array, text: TaskText, tasks: jax.Array, length: int
) -> jax.Array:
  """Draws one window for each requested task, uniformly over all that fit.

  Args:
    key: random key, consumed.
    text: text of V tasks, each of at least `length` tokens (see `from_arrays`).
    tasks: [B] int32 in [0, V).
    length: tokens of a window.

  Returns:
    [B, length] of the text's type.
  """
  _check_length(length, text.tokens.shape[1])
  num_starts = (text.lengths[tasks] - length) // text.stride + 1
  starts = text.stride * jax.random.randint(
    key, tasks.shape, 0, num_starts, jnp.int32
  )
  columns = starts[:, None] + jnp.arange(length, dtype=jnp.int32)[None, :]
  return text.tokens[tasks[:, None], columns]


def evaluation_windows(
  text: TaskText, num_per_task: int, length: int
) -> jax.Array:
  """Cuts evenly spaced windows, the same ones every time.

  The first window of a task starts at its first token, the last ends within a
  stride of its last. Windows overlap, or come again, only where a task has
  fewer than `num_per_task * length` tokens.

  Args:
    text: text of V tasks, each of at least `length` tokens (see `from_arrays`).
    num_per_task: windows of each task.
    length: tokens of a window.

  Returns:
    [V, num_per_task, length] of the text's type.
  """
  _check_length(length, text.tokens.shape[1])
  if num_per_task < 1:
    raise ValueError(
      f"num_per_task must be at least 1, got num_per_task={num_per_task}"
    )
  gaps = max(num_per_task - 1, 1)
  window = jnp.arange(num_per_task, dtype=jnp.int32)[None, :]
  last = ((text.lengths - length) // text.stride)[:, None]
  # floor(window * last / gaps), without the product that overflows int32.
  starts = window * (last // gaps) + window * (last % gaps) // gaps
  starts = starts * text.stride
  columns = (
    starts[:, :, None] + jnp.arange(length, dtype=jnp.int32)[None, None, :]
  )
  rows = jnp.arange(text.lengths.shape[0], dtype=jnp.int32)[:, None, None]
  return text.tokens[rows, columns]
