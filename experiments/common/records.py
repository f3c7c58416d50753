"""Records that a config is read into, once, before any work."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import ml_collections

from tanbr_jax.bandits import Bandit
from tanbr_jax.environments import Environment
from tanbr_jax.monitor.base import check_at_least_one
from tanbr_jax.online import rollout
from tanbr_jax.online.trace import Trace

Record = TypeVar("Record")


def read(
  kind: type[Record], config: ml_collections.ConfigDict, **given: Any
) -> Record:
  """Makes a record from the config's fields of the same names.

  Args:
    kind: a dataclass.
    config: may lack fields that are given or have a default, and may have
      others. A section becomes a dict.
    **given: fields that are not the config's own of that name.
  """
  names = {field.name for field in dataclasses.fields(kind)}
  values = {k: v for k, v in config.to_dict().items() if k in names}
  return kind(**values | given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
  """Rounds, seeds and chunks of a run.

  Attributes:
    num_rounds: T.
    num_seeds: S.
    first_seed: the seeds are the S numbers from here on.
    chunk_size: rounds between two saves.
    loop: "vmap" or "map" over the seeds, see `rollout.run`.
  """

  num_rounds: int
  num_seeds: int
  first_seed: int
  chunk_size: int
  loop: str

  def __post_init__(self) -> None:
    """Raises a ValueError if a number is out of range or a name unknown."""
    check_at_least_one(
      num_rounds=self.num_rounds,
      num_seeds=self.num_seeds,
      chunk_size=self.chunk_size,
    )
    if self.first_seed < 0:
      raise ValueError(
        f"first_seed must not be negative, got first_seed={self.first_seed}"
      )
    rollout.check_loop(self.loop)

  @property
  def seeds(self) -> range:
    """The S seeds."""
    return range(self.first_seed, self.first_seed + self.num_seeds)

  def play(
    self,
    bandit: Bandit,
    environment: Environment,
    *,
    workdir: Path,
    name: str,
    progress: bool,
  ) -> Trace:
    """Plays a method or resumes it, see `rollout.run`."""
    return rollout.run(
      bandit,
      environment,
      num_rounds=self.num_rounds,
      seeds=self.seeds,
      chunk_size=self.chunk_size,
      workdir=workdir,
      progress=progress,
      name=name,
      loop=self.loop,
    )
