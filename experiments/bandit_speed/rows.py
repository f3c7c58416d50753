"""Rows of the benchmark: our bandits' chunks under a clock, and the table."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.bandit_speed.settings import MIN_CHUNKS, SpeedSettings
from tanbr_jax import bandits
from tanbr_jax.environments import Environment
from tanbr_jax.online import rounds
from tanbr_jax.report import tables

Row = dict[str, Any]
# Key of a row -> heading and format.
_COLUMNS = {
  "num_seeds": ("seeds", "{:,}"),
  "num_rounds": ("rounds", "{:,}"),
  "rate": ("rounds/s", "{:,.1f}"),
  "rate_low": ("lowest", "{:,.1f}"),
  "rate_high": ("highest", "{:,.1f}"),
  "last_over_second": ("last/second", "{:.2f}"),
  "x_pyxab": ("x PyXAB", "{:,.1f}"),
  "x_torch": ("x PyTorch", "{:,.1f}"),
  "wall_seconds": ("wall, s", "{:,.1f}"),
  "compile_seconds": ("compile, s", "{:,.1f}"),
}


class Chunks:
  """A bandit's run in chunks, from round 0 on."""

  def __init__(
    self,
    bandit: bandits.Bandit,
    environment: Environment,
    num_seeds: int,
    *,
    size: int,
    loop: str,
    clock: Callable[[], float] = time.perf_counter,
  ):
    """Makes the first carry."""
    self.bandit = bandit
    self._environment, self._clock = environment, clock
    self._seeds = np.arange(num_seeds, dtype=np.int32)
    self._size, self._loop, self._start = size, loop, 0
    self._carry = rounds.init(bandit, environment, self._seeds)

  def warm_up(self) -> float:
    """Plays the first chunk, forgets it and returns its seconds."""
    carry = self._carry
    seconds = self.play()
    self._carry, self._start = carry, 0
    return seconds

  def play(self) -> float:
    """Plays a chunk and returns its seconds."""
    begin = self._clock()
    self._carry, record = rounds.play(
      self.bandit,
      self._environment,
      self._carry,
      self._seeds,
      np.int32(self._start),
      chunk_size=self._size,
      loop=self._loop,
    )
    jax.device_get(record)
    jax.block_until_ready(self._carry)
    self._start += self._size
    return self._clock() - begin

  def is_finite(self) -> bool:
    """Tells whether all parts of the bandit's state are finite."""
    leaves = jax.tree.leaves(jax.device_get(self._carry.bandit))
    return all(np.isfinite(leaf).all() for leaf in leaves)


def time_bandit(
  settings: SpeedSettings,
  method: str,
  bandit: bandits.Bandit,
  environment: Environment,
  num_seeds: int,
) -> Row:
  """The row of one of our bandits."""
  chunks = Chunks(
    bandit, environment, num_seeds, size=settings.chunk_size, loop=settings.loop
  )
  warmup = chunks.warm_up()
  seconds: list[float] = []
  for _ in range(settings.num_rounds // settings.chunk_size):
    if len(seconds) >= MIN_CHUNKS and sum(seconds) > settings.max_seconds:
      break
    seconds.append(chunks.play())
  return make_row(method, num_seeds, settings.chunk_size, seconds, warmup)


def after_history(
  settings: SpeedSettings,
  title: str,
  learns: bandits.Bandit,
  bandit: bandits.Bandit,
  environment: Environment,
  num_seeds: int,
) -> Row:
  """The row of `bandit` after a history that `learns` has played.

  Raises:
    ValueError: the network diverged, which ends its training early.
  """
  sizes = settings.torch
  chunks = Chunks(
    learns, environment, num_seeds, size=sizes.chunk_size, loop=settings.loop
  )
  warmup = chunks.warm_up()
  for _ in range(sizes.history // sizes.chunk_size):
    chunks.play()
  chunks.bandit = bandit
  played = range(sizes.num_rounds // sizes.chunk_size)
  seconds = [chunks.play() for _ in played]
  if not chunks.is_finite():
    raise ValueError(f"{title}: the state must stay finite, got NaN or inf")
  return make_row(title, num_seeds, sizes.chunk_size, seconds, warmup)


def make_row(
  method: str,
  num_seeds: int,
  chunk_size: int,
  seconds: Sequence[float],
  warmup: float | None = None,
) -> Row:
  """A row of the seconds that chunks took; see the module for its rates."""
  rates = num_seeds * chunk_size / np.asarray(seconds)
  row = {
    "method": method,
    "num_seeds": num_seeds,
    "num_rounds": chunk_size * len(seconds),
    "rate": float(np.median(rates)),
    "rate_low": float(rates.min()),
    "rate_high": float(rates.max()),
    "last_over_second": float(rates[-1] / rates[1]),
    "wall_seconds": float(np.sum(seconds)),
  }
  if warmup is not None:
    row["compile_seconds"] = max(0.0, float(warmup - seconds[0]))
  return row


def compare(row: Row, outside: Row | None, key: str) -> Row:
  """Adds the ratio of its rate to an outside row's, where that has one."""
  if outside and "rate" in outside:
    row[key] = row["rate"] / outside["rate"]
  return row


def progress(row: Row) -> str:
  """One line on a row."""
  said = row.get("missing") or f"{row['rate']:,.1f} rounds/s"
  seeds = f" x {row['num_seeds']}" if "num_seeds" in row else ""
  return f"{row['method']}{seeds}: {said}"


def show(rows: Sequence[Row]) -> None:
  """Prints the table."""
  print()
  tables.print_rows([_cells(row) for row in rows])


def _cells(row: Row) -> dict[str, str]:
  cells = {
    title: form.format(row[key]) if key in row else ""
    for key, (title, form) in _COLUMNS.items()
  }
  return {"method": row["method"]} | cells | {"": row.get("missing", "")}
