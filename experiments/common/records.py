"""Records that a config is read into, once, before any work."""

import dataclasses
from typing import Annotated, Any, TypeVar

import ml_collections

from experiments.common import launch
from tanbr_jax.bandits import Bandit
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Range, Whole
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

  Raises:
    ValueError: a field is missing, or the record refuses a value.
  """
  fields = {field.name: field for field in dataclasses.fields(kind)}
  values = {k: v for k, v in config.to_dict().items() if k in fields} | given
  for name, field in fields.items():
    absent = (field.default, field.default_factory) == (
      dataclasses.MISSING,
    ) * 2
    if absent and name not in values:
      raise ValueError(f"{name} is missing in the config")
  return kind(**values)


def read_section(
  kind: type[Record],
  config: ml_collections.ConfigDict,
  section: str,
  **given: Any,
) -> Record:
  """Makes a record from a section of the config that is all its own.

  Args:
    kind: a dataclass.
    config: of which `config[section]` is read.
    section: its name, which errors begin with.
    **given: further fields.

  Raises:
    ValueError: as `read`, or a field is unknown.
  """
  known = [field.name for field in dataclasses.fields(kind)]
  for name in config[section]:
    if name not in known:
      hint = launch.suggest(name, known)
      raise ValueError(f"unknown field {section}.{name}{hint}")
  try:
    return read(kind, config[section], **given)
  except ValueError as error:
    raise ValueError(f"{section}.{error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(ranges.Checked):
  """Rounds, seeds and chunks of a run; see `rollout.run`."""

  num_rounds: Count
  num_seeds: Annotated[int, Range(1, 1_000_000, "[]")]
  first_seed: Whole
  chunk_size: Count
  loop: str

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    if self.seeds.stop > ranges.MAX_INT:
      raise ValueError(
        f"first_seed + num_seeds must be at most {ranges.MAX_INT}, got "
        f"first_seed={self.first_seed}, num_seeds={self.num_seeds}"
      )
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
