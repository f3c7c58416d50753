"""Traces of runs: one array a quantity, a row a seed.

Letters: S seeds, T rounds, V tasks, E experts.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from tanbr_jax.storage import atomic


@dataclasses.dataclass(frozen=True)
class Trace:
  """The rounds of one bandit in one environment, as NumPy arrays.

  Attributes:
    seeds: [S] int64.
    expected_reward: [S, T] float32, the played weights' reward without noise.
    realised_reward: [S, T] float32, what the slots gave; NaN or infinite where
      the environment reported such a reward.
    optimal_reward: [S, T] float32, the best expected reward of any weights.
    merge_weights: [S, T, E] float32, what was played.
    task_mix: [S, T, V] float32, the true mix.
    shown_mix: [S, T, V] float32, the mix that the bandit saw.
    task_count: [S, T, V] int32, requests that the bandit could learn from.
    nonfinite_rewards: [S, T] int32, tasks whose reward was not finite and was
      therefore hidden from the bandit.
    nonfinite_signals: [S, T] int32, how many of the gradient and the usage that
      the bandit reads were not finite and therefore not shown to it.
    seconds: [C] float64, wall time of each chunk; NaN for one that compiled.
    chunk_rounds: [C] int64, rounds of each chunk.
    aux: name -> [S, T], every scalar that the bandit put in `Decision.aux`.
  """

  seeds: np.ndarray
  expected_reward: np.ndarray
  realised_reward: np.ndarray
  optimal_reward: np.ndarray
  merge_weights: np.ndarray
  task_mix: np.ndarray
  shown_mix: np.ndarray
  task_count: np.ndarray
  nonfinite_rewards: np.ndarray
  nonfinite_signals: np.ndarray
  seconds: np.ndarray
  chunk_rounds: np.ndarray
  aux: dict[str, np.ndarray]

  @property
  def num_seeds(self) -> int:
    """S."""
    return self.expected_reward.shape[0]

  @property
  def num_rounds(self) -> int:
    """T."""
    return self.expected_reward.shape[1]

  @property
  def rounds_per_second(self) -> float:
    """Rounds that each seed advanced a second, chunks that compiled left out.

    All seeds advance together, hence S times as many slots were served. NaN
    when every chunk compiled, which is so when there is only one.
    """
    steady = np.isfinite(self.seconds)
    if not steady.any():
      return float("nan")
    return float(self.chunk_rounds[steady].sum() / self.seconds[steady].sum())


_PER_ROUND = tuple(
  field.name
  for field in dataclasses.fields(Trace)
  if field.name not in ("seeds", "seconds", "chunk_rounds", "aux")
)


def join(traces: Sequence[Trace]) -> Trace:
  """Joins consecutive chunks of one run along their rounds."""
  per_round = {
    name: np.concatenate([getattr(trace, name) for trace in traces], axis=1)
    for name in _PER_ROUND
  }
  return Trace(
    seeds=traces[0].seeds,
    seconds=np.concatenate([trace.seconds for trace in traces]),
    chunk_rounds=np.concatenate([trace.chunk_rounds for trace in traces]),
    aux={
      name: np.concatenate([trace.aux[name] for trace in traces], axis=1)
      for name in traces[0].aux
    },
    **per_round,
  )


def stack(traces: Sequence[Trace]) -> Trace:
  """Joins traces of the same rounds along their seeds.

  A chunk took as long as where it took longest.
  """
  arrays = [to_arrays(trace) for trace in traces]
  shared = {
    "seconds": np.max([trace.seconds for trace in traces], axis=0),
    "chunk_rounds": traces[0].chunk_rounds,
  }
  by_seed = {
    name: np.concatenate([other[name] for other in arrays])
    for name in arrays[0].keys() - shared.keys()
  }
  return from_arrays(by_seed | shared)


def to_arrays(trace: Trace) -> dict[str, np.ndarray]:
  """A trace as a flat dict; the entries of `aux` are named `aux/<name>`."""
  arrays = {
    field.name: getattr(trace, field.name)
    for field in dataclasses.fields(Trace)
    if field.name != "aux"
  }
  return arrays | {f"aux/{name}": value for name, value in trace.aux.items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Trace:
  """The inverse of `to_arrays`; files without signals have none hidden."""
  aux = {
    name.removeprefix("aux/"): value
    for name, value in arrays.items()
    if name.startswith("aux/")
  }
  plain = {
    name: value for name, value in arrays.items() if not name.startswith("aux/")
  }
  none_hidden = np.zeros_like(plain["nonfinite_rewards"])
  return Trace(aux=aux, **{"nonfinite_signals": none_hidden, **plain})


def save(path: str | os.PathLike[str], traces: Mapping[str, Trace]) -> None:
  """Writes the traces of a run's folder into one npz, atomically.

  Args:
    path: the file, `trace.npz` in a run's folder.
    traces: method name -> trace; an array is stored as `<method>:<field>`.
  """
  atomic.write_arrays(
    path,
    {
      f"{method}:{name}": array
      for method, trace in traces.items()
      for name, array in to_arrays(trace).items()
    },
  )


def load(path: str | os.PathLike[str]) -> dict[str, Trace]:
  """Reads what `save` wrote: method name -> trace, in the order of saving.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file was damaged.
  """
  grouped: dict[str, dict[str, np.ndarray]] = {}
  for key, array in atomic.read_arrays(path)[0].items():
    method, name = key.split(":", 1)
    grouped.setdefault(method, {})[name] = array
  return {method: from_arrays(group) for method, group in grouped.items()}
