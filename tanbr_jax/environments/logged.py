"""An environment that replays a recorded log of rewards.

A log's N rows each hold weights that were played, the tasks' mean rewards and
how many requests each mean is of. Rows with equal weights make an arm. Weights
that a bandit plays are answered by the nearest arm in Euclidean distance [R]:
the feedback is one of that arm's rows, drawn anew in every slot, and the
expected reward is psi . h with h the arm's mean over its requests. Hence the
answer is exact for a bandit that keeps to the logged arms, and for others as
good as the log is dense. The alternative is to give no feedback for weights
farther than `max_distance` from every arm. Rewards are taken not to depend on
when they were recorded; mixes come in the recorded order. Letters: N rows, T
slots of mixes, A arms, V tasks, E experts.
"""

import os
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Context, Feedback
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Range
from tanbr_jax.environments.base import Environment, Outcome
from tanbr_jax.simplex.points import check_simplex
from tanbr_jax.storage import atomic

_FIELDS = ("weights", "mix", "rewards", "counts")
_SIGNALS = ("gradients", "gradient_counts", "usage")


class _Table(NamedTuple):
  arms: jax.Array  # [A, E] different weights
  arm_rewards: jax.Array  # [A, V] mean reward
  first_row: jax.Array  # [A] int32, rows are sorted by arm
  num_rows: jax.Array  # [A] int32
  rewards: jax.Array  # [N, V]
  counts: jax.Array  # [N, V] int32
  is_counted: jax.Array  # [] bool, whether the log says how many requests
  mixes: jax.Array  # [T, V]
  row_of_log: jax.Array  # [N] int32, each row's place in the log


class _Signals(NamedTuple):
  """Signals by the log's own rows; None where it has none."""

  gradients: jax.Array | None  # [N, E], zeros where not recorded
  gradient_counts: jax.Array | None  # [N] int32
  usage: jax.Array | None  # [N, E], zeros where not recorded


@ranges.checked
def logged(
  weights: np.ndarray,
  mix: np.ndarray,
  rewards: np.ndarray,
  counts: np.ndarray | None = None,
  *,
  gradients: np.ndarray | None = None,
  gradient_counts: np.ndarray | None = None,
  usage: np.ndarray | None = None,
  max_distance: Annotated[float, Range(0, ends="[]")] = float("inf"),
) -> Environment:
  """Replays a table.

  An arm whose requests never were of some task is given the task's mean over
  the whole log [R], in `Outcome` only: the bandit sees counts of 0.

  Args:
    weights: [N, E] weights that were played, on the simplex.
    mix: [T, V] task mixes of consecutive slots, on the simplex; after T slots
      they come again. T need not be N.
    rewards: [N, V] each row's mean reward by task; ignored, and may be NaN,
      where the count is 0.
    counts: [N, V] requests of each mean; None for a log without counts. The
      bandit then sees a count of 1 for every task, and the realised reward is
      psi . r of the drawn row; with counts it is the mean over the row's
      requests.
    gradients: [N, E] the slots' gradients at the weights that were played, as
      `Feedback.gradient` has them; a row that is NaN was not recorded. They are
      shown for the drawn row, although its weights may not be those played.
    gradient_counts: [N] requests of each gradient; None for 1.
    usage: [N, E] the routers' usage, on the simplex; a row that is NaN was not
      recorded.
    max_distance: feedback is given for weights no farther than this from an
      arm, in Euclidean distance. Farther ones have counts of 0, no signals and
      the expected reward of the nearest arm.

  Returns:
    An `Environment` whose state is the number of the slot. The context is the
    recorded mix. `Outcome.optimal_reward` is the best expected reward of an arm
    in that slot.

  Raises:
    ValueError: shapes do not fit, a weight, mix or usage is off the simplex, a
      count is negative, a reward that counts or a gradient is not finite, or a
      task has none.
  """
  table = _checked(weights, mix, rewards, counts)
  return Environment(
    Partial(_init),
    Partial(_context, table),
    Partial(
      _step,
      table,
      _signals(weights, gradients, gradient_counts, usage),
      jnp.float32(max_distance),
    ),
  )


def save_npz(
  path: str | os.PathLike[str],
  weights: np.ndarray,
  mix: np.ndarray,
  rewards: np.ndarray,
  counts: np.ndarray | None = None,
  *,
  gradients: np.ndarray | None = None,
  gradient_counts: np.ndarray | None = None,
  usage: np.ndarray | None = None,
) -> None:
  """Writes the arguments of `logged` to a file, atomically.

  Raises:
    ValueError: as `logged`; nothing is written then.
  """
  _checked(weights, mix, rewards, counts)
  _signals(weights, gradients, gradient_counts, usage)
  arrays = (weights, mix, rewards, counts, gradients, gradient_counts, usage)
  values = zip((*_FIELDS, *_SIGNALS), arrays, strict=True)
  atomic.write_arrays(
    path,
    {name: np.asarray(array) for name, array in values if array is not None},
  )


def from_npz(
  path: str | os.PathLike[str], *, max_distance: float = float("inf")
) -> Environment:
  """The environment of a file with weights, mix and rewards.

  Args:
    path: an npz, of `save_npz` or one's own; it may have the other arrays of
      `logged` too.
    max_distance: as in `logged`.

  Raises:
    ValueError: the file was damaged, an array is missing, or as `logged`.
  """
  arrays, _ = atomic.read_arrays(path, strict=False)
  if any(name not in arrays for name in _FIELDS[:3]):
    raise ValueError(
      f"{os.fspath(path)} must hold {list(_FIELDS[:3])}, got {list(arrays)}"
    )
  known = (*_FIELDS, *_SIGNALS)
  read = {name: arrays[name] for name in known if name in arrays}
  return logged(**read, max_distance=max_distance)


def _checked(
  weights: np.ndarray,
  mix: np.ndarray,
  rewards: np.ndarray,
  counts: np.ndarray | None,
) -> _Table:
  is_counted = counts is not None
  if not is_counted:
    counts = np.ones(np.shape(rewards), np.int32)
  weights, mix, rewards = (
    np.asarray(array, np.float64) for array in (weights, mix, rewards)
  )
  counts = np.asarray(counts)
  shapes = [list(array.shape) for array in (weights, mix, rewards, counts)]
  if [len(shape) for shape in shapes] != [2] * 4 or not (
    shapes[0][0] == shapes[2][0]
    and shapes[1][1] == shapes[2][1]
    and shapes[2] == shapes[3]
    and min(shapes[0] + shapes[1] + shapes[2]) > 0
  ):
    raise ValueError(
      "weights, mix, rewards and counts must have shapes [N, E], [T, V], "
      f"[N, V] and [N, V], got {shapes}"
    )
  check_simplex("weights", weights)
  check_simplex("mix", mix)
  bad = ~(counts >= 0) | (counts != np.round(counts))
  if bad.any():
    raise ValueError(
      f"counts must be whole and not negative, got a count of {counts[bad][0]}"
    )
  bad = ~np.isfinite(rewards) & (counts > 0)
  if bad.any():
    row, task = np.argwhere(bad)[0]
    raise ValueError(
      f"rewards must be finite, got {rewards[row, task]} in row {row}, task "
      f"{task}"
    )
  unseen = np.flatnonzero(counts.sum(0) == 0)
  if unseen.size:
    raise ValueError(f"every task needs a count, got none of task {unseen[0]}")
  rewards = np.where(counts > 0, rewards, 0.0)
  return _table(weights, mix, rewards, counts, is_counted)


def _table(
  weights: np.ndarray,
  mix: np.ndarray,
  rewards: np.ndarray,
  counts: np.ndarray,
  is_counted: bool,
) -> _Table:
  arms, arm_of_row = np.unique(weights, axis=0, return_inverse=True)
  arm_of_row = arm_of_row.reshape(-1)
  order = np.argsort(arm_of_row, kind="stable")
  num_rows = np.bincount(arm_of_row)
  totals = np.zeros((len(arms), rewards.shape[1]))
  requests = np.zeros_like(totals)
  np.add.at(totals, arm_of_row, rewards * counts)
  np.add.at(requests, arm_of_row, counts)
  overall = totals.sum(0) / requests.sum(0)
  means = np.where(requests > 0, totals / np.maximum(requests, 1), overall)
  return _Table(
    arms=jnp.asarray(arms, jnp.float32),
    arm_rewards=jnp.asarray(means, jnp.float32),
    first_row=jnp.asarray(np.cumsum(num_rows) - num_rows, jnp.int32),
    num_rows=jnp.asarray(num_rows, jnp.int32),
    rewards=jnp.asarray(rewards[order], jnp.float32),
    counts=jnp.asarray(counts[order], jnp.int32),
    is_counted=jnp.asarray(is_counted),
    mixes=jnp.asarray(mix, jnp.float32),
    row_of_log=jnp.asarray(order, jnp.int32),
  )


def _signals(
  weights: np.ndarray,
  gradients: np.ndarray | None,
  gradient_counts: np.ndarray | None,
  usage: np.ndarray | None,
) -> _Signals:
  """The signals of the log's rows, checked."""
  shape = np.shape(weights)
  is_given, counts = None, None
  if gradients is None and gradient_counts is not None:
    raise ValueError("gradient_counts are of gradients, got gradients=None")
  if gradients is not None:
    gradients, is_given = _recorded("gradients", gradients, shape)
    counts = np.ones(shape[0]) if gradient_counts is None else gradient_counts
    counts = np.asarray(counts)
    if counts.shape != shape[:1] or not (counts[is_given] >= 1).all():
      raise ValueError(
        "gradient_counts must be [N] of at least 1, got shape "
        f"{list(counts.shape)}, least {np.min(counts, initial=np.inf)}"
      )
    counts = np.where(is_given, counts, 0)
  if usage is not None:
    usage, is_given = _recorded("usage", usage, shape)
    uniform = 1 / shape[1]
    check_simplex("usage", np.where(is_given[:, None], usage, uniform))
  return _Signals(
    None if gradients is None else jnp.asarray(gradients, jnp.float32),
    None if counts is None else jnp.asarray(counts, jnp.int32),
    None if usage is None else jnp.asarray(usage, jnp.float32),
  )


def _recorded(
  name: str, values: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
  """Rows [N, E] with zeros for those that are NaN, and [N] which are not."""
  values = np.asarray(values, np.float64)
  if values.shape != shape:
    raise ValueError(
      f"{name} must be [N, E] = {list(shape)}, got {list(values.shape)}"
    )
  is_given = ~np.isnan(values).all(axis=1)
  values = np.where(is_given[:, None], values, 0.0)
  if not np.isfinite(values).all():
    row, expert = np.argwhere(~np.isfinite(values))[0]
    raise ValueError(
      f"{name} must be finite or NaN in a whole row, got "
      f"{values[row, expert]} in row {row}, expert {expert}"
    )
  return values, is_given


def _init(key: jax.Array) -> jax.Array:
  del key
  return jnp.int32(0)


def _context(table: _Table, slot: jax.Array) -> Context:
  return Context(table.mixes[slot % table.mixes.shape[0]])


def _step(
  table: _Table,
  signals: _Signals,
  max_distance: jax.Array,
  key: jax.Array,
  slot: jax.Array,
  merge_weights: jax.Array,
) -> tuple[Feedback, Outcome, jax.Array]:
  mix = _context(table, slot).task_mix
  squares = jnp.sum((table.arms - merge_weights[None, :]) ** 2, axis=1)
  arm = jnp.argmin(squares)
  draw = (
    jax.random.uniform(key, dtype=jnp.float32)
    * table.num_rows[arm].astype(jnp.float32)
  ).astype(jnp.int32)
  # Rounding can make the product equal to the number of rows.
  row = table.first_row[arm] + jnp.minimum(draw, table.num_rows[arm] - 1)
  # The weights of a logged arm come back from float32 with an error.
  is_near = squares[arm] <= (max_distance + 1e-5) ** 2
  count = jnp.where(is_near, table.counts[row], 0)
  reward = jnp.where(count > 0, table.rewards[row], 0.0)
  expected = table.arm_rewards @ mix
  best = jnp.argmax(expected)
  # Without counts nothing but the mix says how often each task was asked.
  shares = jnp.where(count > 0, mix, 0.0)
  requests = jnp.where(table.is_counted, count.astype(jnp.float32), shares)
  outcome = Outcome(
    task_mix=mix,
    expected_reward=expected[arm],
    realised_reward=reward @ requests / jnp.maximum(jnp.sum(requests), 1.0),
    optimal_reward=expected[best],
    optimal_weights=table.arms[best],
  )
  # Rows that were not recorded are zeros, as for weights without an answer.
  told = jax.tree.map(
    lambda rows: jnp.where(is_near, rows[table.row_of_log[row]], 0), signals
  )
  feedback = Feedback(
    reward,
    count,
    gradient=told.gradients,
    usage=told.usage,
    gradient_count=told.gradient_counts,
  )
  return feedback, outcome, slot + 1
