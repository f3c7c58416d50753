"""Records that a config is read into, once, before any work."""

import dataclasses
from typing import Any, TypeVar

import ml_collections

from tanbr_jax.bandits import Bandit
from tanbr_jax.environments import Environment
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
  """Rounds, seeds and chunks of a run; see `rollout.run`."""

  num_rounds: int
  num_seeds: int
  first_seed: int
  chunk_size: int
  loop: str

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    rollout.check(**self._arguments())

  @property
  def seeds(self) -> range:
    """The seeds: so many numbers, from the first on."""
    return range(self.first_seed, self.first_seed + self.num_seeds)

  def play(
    self, bandit: Bandit, environment: Environment, **options: Any
  ) -> Trace:
    """Calls `rollout.run` with these settings and the options."""
    return rollout.run(bandit, environment, **self._arguments(), **options)

  def _arguments(self) -> dict[str, Any]:
    names = ("num_rounds", "seeds", "chunk_size", "loop")
    return {name: getattr(self, name) for name in names}
