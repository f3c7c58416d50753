"""Records that a config is read into, once, before any work."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import jax
import ml_collections
import numpy as np

from experiments.common import launch
from tanbr_jax.bandits import Bandit
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Range, Whole
from tanbr_jax.environments import Environment
from tanbr_jax.online import placement, rollout
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
  """Rounds, seeds and chunks of a run; see `rollout.run`.

  Attributes:
    num_rounds: T.
    num_seeds: S.
    first_seed: the others follow it.
    chunk_size: rounds between two saves.
    loop: "vmap" or "map".
    devices: "all", or how many devices of each process share the seeds.
  """

  num_rounds: Count
  num_seeds: Annotated[int, Range(1, 1_000_000, "[]")]
  first_seed: Whole
  chunk_size: Count
  loop: str
  devices: str = "1"

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    if self.seeds.stop > ranges.MAX_INT:
      raise ValueError(
        f"first_seed + num_seeds must be at most {ranges.MAX_INT}, got "
        f"first_seed={self.first_seed}, num_seeds={self.num_seeds}"
      )
    rollout.check(**self._arguments())
    placement.place(self.num_seeds, self.mesh)

  @property
  def seeds(self) -> range:
    """The seeds: so many numbers, from the first on."""
    return range(self.first_seed, self.first_seed + self.num_seeds)

  @property
  def mesh(self) -> jax.sharding.Mesh | None:
    """The devices of all processes that share the seeds; None for one device.

    Raises:
      ValueError: `devices` is neither "all" nor a number of devices of this
        machine.
    """
    if self.devices == "1" and jax.process_count() == 1:
      return None
    here = jax.local_device_count()
    wanted = here
    if self.devices != "all":
      if not (self.devices.isdecimal() and int(self.devices)):
        raise ValueError(
          "devices must be 'all' or a positive number, got "
          f"devices={self.devices!r}"
        )
      wanted = int(self.devices)
    if wanted > here:
      raise ValueError(
        f"devices must be at most {here}, those of this machine, got {wanted}"
      )
    by_process = np.reshape(jax.devices(), (jax.process_count(), -1))
    return jax.sharding.Mesh(by_process[:, :wanted].flatten(), ("seeds",))

  def play(
    self, bandit: Bandit, environment: Environment, **options: Any
  ) -> Trace:
    """Calls `rollout.run` with these settings and the options."""
    return rollout.run(
      bandit, environment, mesh=self.mesh, **self._arguments(), **options
    )

  def play_together(
    self, bandits: Sequence[Bandit], environment: Environment, **options: Any
  ) -> list[Trace]:
    """A trace for each bandit; several need one structure."""
    if len(bandits) == 1:
      return [self.play(bandits[0], environment, **options)]
    return rollout.run_together(
      bandits, environment, mesh=self.mesh, **self._arguments(), **options
    )

  def _arguments(self) -> dict[str, Any]:
    names = ("num_rounds", "seeds", "chunk_size", "loop")
    return {name: getattr(self, name) for name in names}
