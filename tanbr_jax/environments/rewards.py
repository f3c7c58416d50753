"""The rewards that a served request can have, as functions of the logits.

A reward maps the logits [B, S, V] of a slot's B windows and the windows as they
were read (`data.Windows`, of [B, S]) to what each request earned, [B] floats.
Logits are those of the text that was served before, all S tokens at once:
every prediction follows the true text. A reward need not have a derivative.
One of a user's own is such a function; arrays that it reads, for instance the
parameters of another model, are bound with `jax.tree_util.Partial`, so that
they pass through `jit` as arguments. Letters: B windows, S tokens of context, V
the vocabulary.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import data, models
from tanbr_jax.checks.names import check_choice

Reward = Callable[[jax.Array, data.Windows], jax.Array]

# Space, tab and line ends, as bytes.
SEPARATORS = (9, 10, 13, 32)


def _accuracy(logits: jax.Array, read: data.Windows) -> jax.Array:
  return models.score_logits(logits, read.targets, read.is_scored).accuracy


def _log_likelihood(logits: jax.Array, read: data.Windows) -> jax.Array:
  return -models.score_logits(logits, read.targets, read.is_scored).loss


def _likeliest(logits: jax.Array) -> jax.Array:
  return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _is_any(tokens: jax.Array, members: jax.Array) -> jax.Array:
  return jnp.any(tokens[..., None] == members, axis=-1)


def _whole_words(
  separators: jax.Array, logits: jax.Array, read: data.Windows
) -> jax.Array:
  separators = separators[None, None, :]
  ends_word = _is_any(read.targets, separators)
  if read.is_scored is not None:
    ends_word = ends_word | ~read.is_scored
  is_wrong = _likeliest(logits) != read.targets
  # The separator before each place: -1 for none, where the window begins.
  places = jnp.arange(read.targets.shape[1], dtype=jnp.int32)[None, :]
  before = jax.lax.cummax(jnp.where(ends_word, places, -1), axis=1)
  # Mistakes up to each place, with none before the first.
  mistakes = jnp.cumsum(is_wrong, axis=1, dtype=jnp.int32)
  mistakes = jnp.pad(mistakes, ((0, 0), (1, 0)))
  # A word's last token is followed by a separator inside of the window, and
  # what the window begins with is a word only after a separator.
  is_last = ~ends_word[:, :-1] & ends_word[:, 1:]
  starts_whole = _is_any(read.inputs[:, :1], separators)
  is_last = is_last & ((before[:, :-1] >= 0) | starts_whole)
  since = jnp.take_along_axis(mistakes, before + 1, axis=1)[:, :-1]
  is_right = is_last & (mistakes[:, 1:-1] == since)
  words = jnp.sum(is_last, axis=1, dtype=jnp.int32)
  right = jnp.sum(is_right, axis=1, dtype=jnp.int32)
  return right.astype(jnp.float32) / jnp.maximum(words, 1).astype(jnp.float32)


def whole_words(separators: Sequence[int] = SEPARATORS) -> Partial:
  """The share of a window's words of which every token is predicted right.

  A word is a longest run of scored tokens between separators. One that the
  window cuts at either end does not count; a window without a whole word has
  reward 0.

  Args:
    separators: tokens that are in no word; bytes' white space by default.
  """
  return Partial(_whole_words, jnp.asarray(separators, jnp.int32))


def _predicts(
  wanted: jax.Array, logits: jax.Array, read: data.Windows
) -> jax.Array:
  is_wanted = _is_any(_likeliest(logits), wanted[None, None, :])
  return models.mean_over_scored(is_wanted.astype(jnp.float32), read.is_scored)


def predicts(wanted: Sequence[int]) -> Partial:
  """The share of predictions that are one of some tokens, right or wrong.

  A reward for the form of an answer, which the served text does not tell.

  Args:
    wanted: tokens.
  """
  return Partial(_predicts, jnp.asarray(wanted, jnp.int32))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Judge:
  model: models.Model


def _judged(
  judge: _Judge, params: models.Params, logits: jax.Array, read: data.Windows
) -> jax.Array:
  other = judge.model.apply(params, read.inputs)
  agrees = _likeliest(logits) == _likeliest(other)
  return models.mean_over_scored(agrees.astype(jnp.float32), read.is_scored)


def judged_by(model: models.Model, params: models.Params) -> Partial:
  """The share of predictions that another model would have made too.

  Args:
    model: the judge, which reads the same tokens.
    params: its parameters, which `jit` takes as an argument.
  """
  return Partial(_judged, _Judge(model), params)


def _plain_letters() -> Partial:
  codes = np.arange(256, dtype=np.uint8)
  is_letter = np.char.isalpha(codes.view("S1")) | (codes == 32)
  return predicts(np.flatnonzero(is_letter))


# Rewards by name. The last two are of bytes: whole words, and the share of
# predictions that are a letter of ASCII or a space.
NAMED: dict[str, Callable[[], Partial]] = {
  "accuracy": lambda: Partial(_accuracy),
  "log_likelihood": lambda: Partial(_log_likelihood),
  "whole_words": whole_words,
  "plain_letters": _plain_letters,
}
OF_BYTES = ("plain_letters", "whole_words")


def as_reward(reward: str | Reward) -> Partial:
  """The reward of that name, or a function as what `jit` takes.

  Raises:
    ValueError: no reward has that name.
  """
  if isinstance(reward, Partial):
    return reward
  if callable(reward):
    return Partial(reward)
  check_choice("reward", reward, NAMED)
  return NAMED[reward]()


def check_reward(
  reward: Partial, *, requests: int, context: int, vocab_size: int
) -> None:
  """Refuses a function that is no reward, without computing anything.

  Args:
    reward: of `as_reward`.
    requests: B.
    context: S.
    vocab_size: V.

  Raises:
    ValueError: its value is not [B] floats.
  """
  tokens = jax.ShapeDtypeStruct((requests, context), jnp.int32)
  logits = jax.ShapeDtypeStruct((*tokens.shape, vocab_size), jnp.float32)
  found = jax.eval_shape(reward, logits, data.Windows(tokens, tokens))
  shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
  if shape != (requests,) or not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(
      "reward must map logits [B, S, V] and windows of [B, S] to [B] floats, "
      f"got {found} for B={requests}, S={context}, V={vocab_size}"
    )
