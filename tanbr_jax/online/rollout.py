"""The online loop: one bandit, one environment, many rounds, several seeds.

Rounds run in a `lax.scan`, a chunk at a time; between chunks the loop reports
progress, writes metrics and saves. A run that was killed resumes from its last
whole chunk and ends with the same bits, because a round's random keys depend
on nothing but the seed and the number of the round.

Letters: S seeds, T rounds, C rounds a chunk, V tasks, E experts.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import logging

from tanbr_jax.bandits.base import Bandit, as_pytree
from tanbr_jax.checks.names import check_choice, check_name
from tanbr_jax.environments.base import Environment
from tanbr_jax.online import chunk_store, processes, rounds, signals
from tanbr_jax.online.placement import Placement, place
from tanbr_jax.online.trace import (
  Trace,
  from_arrays,
  join,
  stack,
  to_arrays,
)
from tanbr_jax.simplex.points import is_on_simplex

LOOPS = ("vmap", "map")


def run(
  bandit: Bandit,
  environment: Environment,
  *,
  num_rounds: int,
  seeds: Sequence[int],
  chunk_size: int = 500,
  workdir: str | os.PathLike[str] | None = None,
  progress: bool = True,
  name: str = "tanbr",
  loop: str = "vmap",
  mesh: jax.sharding.Mesh | None = None,
) -> Trace:
  """Plays `num_rounds` rounds for every seed and returns what happened.

  Every bandit that runs with the same seed meets the same requests. The
  bandit and the environment go through `jit` as arguments, so that a second
  run with other hyper-parameters of the same structure does not compile again.

  A task whose reward is not finite is hidden from the bandit, as if it had not
  been seen in that slot, and is counted in `Trace.nonfinite_rewards`; so is a
  gradient or a usage, in `Trace.nonfinite_signals`. A bandit sees the optional
  fields of `Feedback` that it needs and no others.

  Finite rewards that a learner refuses, since they lie far outside of all
  others, are counted in `Trace.aux["refused_rewards"]`, those of all rounds
  before.

  A mesh spreads the seeds over its devices, which then do not wait for each
  other. Where it does not divide them, the last seed is played several times
  over and counts once: what is saved has a row a seed, and a run goes on with
  any number of devices. Another number of seeds on a device is another program
  under "vmap", which may round in another way.

  A mesh with the devices of several processes (`jax.distributed`) also shares
  the seeds among these: each of them calls this with the same arguments, plays
  at its own pace, saves its chunks in a folder of its own, may be killed and
  started again at another chunk than the others, and returns the trace of all
  seeds.

  Args:
    bandit: what decides; plain functions are allowed.
    environment: what it is played against.
    num_rounds: T.
    seeds: S different integers in [0, 2**31): a list, a range or an array.
    chunk_size: C, rounds between two saves. The last chunk runs in full and is
      cut, so that nothing compiles twice.
    workdir: the run's folder; None saves nothing.
    progress: whether a bar with the regret so far is drawn on stderr.
    name: names the run in the folder and in the bar; may contain slashes.
    loop: "vmap" advances the seeds together; "map" one after the other within
      a chunk, which is faster where a batch over seeds is slow (a merged model
      has other weights for every seed) or where a branch is seldom taken.
    mesh: of any axes; None for the one device where JAX computes.

  Returns:
    The trace of all rounds.

  Raises:
    ValueError: an argument is out of range, a device or another process failed,
      the processes were given different runs, the environment does not give a
      signal that the bandit needs, or one of another shape or type, `workdir`
      is in use by another process, holds another run of this name or was
      removed meanwhile, the weights or the expected reward ceased to be finite,
      or the weights or the task mix that was shown were off the simplex.
    OSError: a file cannot be written; names it.
  """
  return _run(
    bandit,
    environment,
    num_rounds=num_rounds,
    seeds=seeds,
    chunk_size=chunk_size,
    workdir=workdir,
    progress=progress,
    name=name,
    loop=loop,
    mesh=mesh,
  )


def run_together(
  bandits: Sequence[Bandit],
  environment: Environment,
  *,
  seeds: Sequence[int],
  **options: Any,
) -> list[Trace]:
  """Plays bandits of one structure at once, each of them with every seed.

  A hyper-parameter axis beside the seeds': G bandits of S seeds are G S rows of
  one program, which an accelerator plays in hardly more time than S of them,
  and which a mesh shares among its devices. What is saved is one run.

  Args:
    bandits: G of them, with leaves of the same shapes: one constructor's, with
      other numbers.
    environment: what they are played against.
    seeds: S seeds, of every bandit.
    **options: as `run`.

  Returns:
    A trace for each bandit, with a G-th of the time that all took.

  Raises:
    ValueError: there is no bandit, their structures differ, or as `run`.
  """
  bandits = [as_pytree(bandit) for bandit in bandits]
  if not bandits or len({structure(bandit) for bandit in bandits}) > 1:
    raise ValueError(
      "bandits must be at least one and of one structure, got "
      f"{len(bandits)} of {len({*map(structure, bandits)})} structures"
    )
  rows = np.repeat(np.arange(len(bandits)), len(seeds))
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves)[rows], *bandits)
  whole = _run(
    stacked, environment, seeds=seeds, first=bandits[0], rows=rows, **options
  )
  shared = {
    "seconds": whole.seconds / len(bandits),
    "chunk_rounds": whole.chunk_rounds,
  }
  by_row = {k: v for k, v in to_arrays(whole).items() if k not in shared}
  return [
    from_arrays({k: v[rows == index] for k, v in by_row.items()} | shared)
    for index in range(len(bandits))
  ]


def structure(bandit: Bandit) -> Any:
  """What bandits must have in common to be played together; hashable."""
  leaves, tree = jax.tree.flatten(as_pytree(bandit))
  return tree, tuple(map(jax.typeof, map(jnp.asarray, leaves)))


def _run(
  bandit: Bandit,
  environment: Environment,
  *,
  num_rounds: int,
  seeds: Sequence[int],
  chunk_size: int = 500,
  workdir: str | os.PathLike[str] | None = None,
  progress: bool = True,
  name: str = "tanbr",
  loop: str = "vmap",
  mesh: jax.sharding.Mesh | None = None,
  first: Bandit | None = None,
  rows: np.ndarray | None = None,
) -> Trace:
  """Plays one bandit, or one a row: `rows` tells whose, `first` is of row 0."""
  # What can be wrong is told before any work.
  chunk_size = min(chunk_size, num_rounds)
  check(num_rounds=num_rounds, seeds=seeds, chunk_size=chunk_size, loop=loop)
  for part in name.split("/"):
    check_name("name", part)
  bandit, environment = as_pytree(bandit), as_pytree(environment)
  seed_array, stacked = np.asarray(seeds, np.int32), rows is not None
  if stacked:
    seed_array = np.tile(seed_array, rows[-1] + 1)
  one = first if stacked else bandit
  slot = rounds.first_slot.eval_shape(one, environment, jax.random.key(0))
  signals.check_shapes(one, *slot, name=name)
  placement = place(len(seed_array), mesh)
  decides = {
    "bandit": bandit,
    "environment": environment,
    "seeds": seed_array,
    "num_rounds": num_rounds,
    "chunk_size": chunk_size,
    "loop": loop == "map",
  }
  if placement.num_processes > 1:
    _agree(name, decides, workdir)
  if stacked:
    bandit = jax.tree.map(lambda leaf: leaf[placement.rows], bandit)
    decides["bandit"] = bandit
  run_id = None
  if workdir is not None:
    own = decides | {"seeds": seed_array[placement.rows]}
    run_id = chunk_store.fingerprint(*own.values())

  def play() -> list[Trace]:
    # The folder is this process's while it plays.
    with chunk_store.opened(
      workdir,
      name,
      run_id=run_id,
      num_chunks=-(-num_rounds // chunk_size),
      num_processes=placement.num_processes,
    ) as store:
      return _play(
        bandit,
        environment,
        seed_array[placement.rows],
        placement=placement,
        num_rounds=num_rounds,
        chunk_size=chunk_size,
        store=store,
        progress=progress,
        name=name,
        loop=loop,
        stacked=stacked,
      )

  if placement.num_processes == 1:
    return join(play())
  chunks = [_of_all_seeds(chunk) for chunk in processes.together(play)]
  if workdir is not None:
    processes.first_alone(
      lambda: chunk_store.write_metrics(
        workdir, name, len(chunks), lambda k: _metrics(chunks[: k + 1])
      )
    )
  return join(chunks)


def _of_all_seeds(chunk: Trace) -> Trace:
  """A chunk of this process's seeds with those of the others, in order."""
  arrays = processes.gather(to_arrays(chunk))
  return stack([from_arrays(theirs) for theirs in arrays])


def _agree(
  name: str,
  decides: Mapping[str, Any],
  workdir: str | os.PathLike[str] | None,
) -> None:
  """Refuses different runs in different processes, by what differs."""
  parts = {
    part: value if isinstance(value, int) else chunk_store.fingerprint(value)
    for part, value in decides.items()
  }
  processes.agree(name, parts | {"name": name, "saves": workdir is not None})


def _play(
  bandit: Bandit,
  environment: Environment,
  seeds: np.ndarray,
  *,
  placement: Placement,
  num_rounds: int,
  chunk_size: int,
  store: chunk_store.ChunkStore | None,
  progress: bool,
  name: str,
  loop: str,
  stacked: bool,
) -> list[Trace]:
  """Plays the chunks that the store does not hold, and returns all."""
  # The first carry, or what the folder holds of this run.
  environment = placement.share(environment)
  bandit = (placement.spread if stacked else placement.share)(bandit)
  spread_seeds = placement.spread(seeds)
  carry = rounds.init(
    bandit, environment, spread_seeds, mesh=placement.mesh, stacked=stacked
  )
  chunks: list[Trace] = []
  if store is not None:
    if (saved := store.load(carry)) is not None:
      carry, chunks = placement.spread(saved.carry), saved.chunks
    store.mend_metrics(len(chunks), lambda k: _metrics(chunks[: k + 1]))
  if placement.mesh is None:
    carry = _beside((bandit, environment), carry)
  # The chunks that are left; each is reported and saved.
  first = len(chunks)
  done = sum(int(chunk.chunk_rounds[0]) for chunk in chunks)
  with (
    tqdm.tqdm(
      total=num_rounds, initial=done, desc=name, disable=not progress, unit="rd"
    ) as bar,
    # The devices play a chunk while the one before is fetched and saved.
    futures.ThreadPoolExecutor(1) as saver,
  ):

    def finish(index: int, played: _Played) -> None:
      start = index * chunk_size
      chunk = _fetch(
        played,
        seeds,
        placement=placement,
        start=start,
        num_rounds=min(chunk_size, num_rounds - start),
        chunk_size=chunk_size,
      )
      chunks.append(chunk)
      processes.check()
      _tell_full_tree(chunks, name)
      metrics = _metrics(chunks)
      if store is not None:
        store.save(index, placement.collect(played.carry), chunk, metrics)
      bar.set_postfix_str(_postfix(metrics))
      bar.update(int(chunk.chunk_rounds[0]))

    saving = None
    for index in range(first, -(-num_rounds // chunk_size)):
      played = _timed_chunk(
        bandit,
        environment,
        carry,
        spread_seeds,
        placement=placement,
        start=index * chunk_size,
        chunk_size=chunk_size,
        loop=loop,
        stacked=stacked,
        compiles=index == first,
      )
      carry = played.carry
      if saving is not None:
        saving.result()
      saving = saver.submit(finish, index, played)
    if saving is not None:
      saving.result()
  return chunks


def _beside(given: Any, carry: rounds.Carry) -> rounds.Carry:
  """Puts a first carry where `rounds.play` leaves the next one.

  What is computed from arrays that were put on a device by name, as those of a
  checkpoint are, is bound to it. A first carry that is not would be of another
  program, and the second chunk compile again.
  """
  for leaf in jax.tree.leaves(given):
    if isinstance(leaf, jax.Array) and leaf.committed:
      if len(leaf.devices()) > 1:
        continue
      # Not the leaf's axes of a mesh, of which a state may have fewer.
      if isinstance(leaf.sharding, jax.sharding.NamedSharding):
        whole = jax.sharding.NamedSharding(leaf.sharding.mesh, jax.P())
        return jax.device_put(carry, whole)
      return jax.device_put(carry, *leaf.devices())
  return carry


def check(
  *, num_rounds: int, seeds: Sequence[int], chunk_size: int, loop: str
) -> None:
  """Raises a ValueError if `run` would refuse any of these arguments."""
  if num_rounds < 1:
    raise ValueError(f"num_rounds must be at least 1, got {num_rounds}")
  if chunk_size < 1:
    raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
  array = np.asarray(seeds)
  if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
    got = " ".join(str(seeds).split())
    raise ValueError(f"seeds must be a sequence of integers, got {got}")
  if not array.size or np.unique(array).size < array.size:
    raise ValueError(
      f"seeds must be one or more different numbers, got {array.tolist()}"
    )
  if array.min() < 0 or array.max() >= 2**31:
    raise ValueError(f"seeds must be in [0, 2**31), got {array.tolist()}")
  check_choice("loop", loop, LOOPS)


class _Played(NamedTuple):
  """A chunk that the devices have played."""

  carry: rounds.Carry
  record: Any
  seconds: float


def _timed_chunk(
  bandit: Bandit,
  environment: Environment,
  carry: rounds.Carry,
  spread_seeds: jax.Array,
  *,
  placement: Placement,
  start: int,
  chunk_size: int,
  loop: str,
  stacked: bool,
  compiles: bool,
) -> _Played:
  """Plays a chunk; its time is NaN where it compiles."""
  begin = time.perf_counter()
  with _telling_failures(start, chunk_size):
    carry, record = rounds.play(
      bandit,
      environment,
      carry,
      spread_seeds,
      np.int32(start),
      chunk_size=chunk_size,
      loop=loop,
      mesh=placement.mesh,
      stacked=stacked,
    )
    record = jax.block_until_ready(record)
  seconds = time.perf_counter() - begin
  return _Played(carry, record, float("nan") if compiles else seconds)


def _fetch(
  played: _Played,
  seeds: np.ndarray,
  *,
  placement: Placement,
  start: int,
  num_rounds: int,
  chunk_size: int,
) -> Trace:
  """Fetches and checks a chunk's trace.

  Args:
    played: the chunk.
    seeds: [S], of this process.
    placement: of the seeds.
    start: first round.
    num_rounds: of the chunk that belong to the run.
    chunk_size: C.
  """
  with _telling_failures(start, chunk_size):
    record = jax.tree.map(np.asarray, played.record)
  record = placement.collect(record)
  # The last chunk ran in full: its surplus rounds do not belong to the run.
  # Their time does, hence the rate is that of the rounds which were played.
  record = jax.tree.map(lambda array: array[:, :num_rounds], record)
  chunk = Trace(
    seeds=np.asarray(seeds, np.int64),
    seconds=np.asarray([played.seconds * num_rounds / chunk_size]),
    chunk_rounds=np.asarray([num_rounds], np.int64),
    **record,
  )
  _check_simplex("context.task_mix", chunk.shown_mix, chunk, start)
  _check_finite(chunk, start)
  _check_simplex("merge_weights", chunk.merge_weights, chunk, start)
  return chunk


@contextlib.contextmanager
def _telling_failures(start: int, chunk_size: int) -> Iterator[None]:
  """Tells in one line that a device ran out of memory or was lost."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(
      f"the devices failed in rounds {start} to {start + chunk_size - 1}: "
      f"{' '.join(str(error).split())}"
    ) from error


def _check_simplex(
  name: str, points: np.ndarray, chunk: Trace, start: int
) -> None:
  """Stops a run whose mix or weights [S, C, ...] are off the simplex."""
  bad = ~is_on_simplex(points)
  if bad.any():
    row, column = np.argwhere(bad)[0]
    values = np.array2string(points[row, column], precision=4, threshold=16)
    raise ValueError(
      f"{name} must be non-negative and sum to 1, got {values} with seed "
      f"{chunk.seeds[row]} in round {start + column}"
    )


def _tell_full_tree(chunks: Sequence[Trace], name: str) -> None:
  """Says once that a tree has no room left; the run goes on with what it has.

  Args:
    chunks: of the run so far, the new one last.
    name: of the run.
  """
  full = [chunk.aux.get("tree_full", np.zeros((1, 1))) for chunk in chunks]
  if not full[-1].any() or any(chunk.any() for chunk in full[:-1]):
    return
  row, column = np.argwhere(full[-1])[0]
  first = sum(int(chunk.chunk_rounds[0]) for chunk in chunks[:-1]) + column
  logging.warning(
    "%s: the tree is full with seed %d in round %d and keeps its leaves; a "
    "larger capacity would let it grow",
    name,
    chunks[-1].seeds[row],
    first,
  )


def _check_finite(chunk: Trace, start: int) -> None:
  """Stops a run whose regret would have no meaning."""
  for field in ("merge_weights", "expected_reward", "optimal_reward"):
    values = getattr(chunk, field)
    bad = ~np.isfinite(values)
    if bad.any():
      where = tuple(np.argwhere(bad)[0])
      raise ValueError(
        f"{field} must be finite, got {values[where]} with seed "
        f"{chunk.seeds[where[0]]} in round {start + where[1]}"
      )


def _metrics(chunks: list[Trace]) -> dict[str, Any]:
  """A line of metrics.jsonl: means over seeds, regrets since round 0."""
  last = chunks[-1]
  regret = sum(
    (c.optimal_reward - c.expected_reward).sum(axis=1, dtype=np.float64)
    for c in chunks
  )
  return {
    "rounds": sum(int(c.chunk_rounds[0]) for c in chunks),
    "expected_regret": float(np.mean(regret)),
    "mean_expected_reward": float(last.expected_reward.mean()),
    "mean_realised_reward": float(last.realised_reward.mean()),
    "nonfinite_rewards": int(sum(c.nonfinite_rewards.sum() for c in chunks)),
    "nonfinite_signals": int(sum(c.nonfinite_signals.sum() for c in chunks)),
    "rounds_per_second": float(last.chunk_rounds[0] / last.seconds[0]),
  }


def _postfix(metrics: dict[str, Any]) -> str:
  rate = metrics["rounds_per_second"]
  speed = "compiled" if np.isnan(rate) else f"{rate:.0f} rd/s"
  return f"regret={metrics['expected_regret']:.2f}, {speed}"
