"""The config of the speed study as records, whose values are checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.common import launch, records, streams
from tanbr_jax import bandits
from tanbr_jax.environments import mixes
from tanbr_jax.environments.landscapes.families import FAMILIES
from tanbr_jax.online import rollout

MIN_CHUNKS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchSettings:
  """Rounds beside PyTorch."""

  history: int
  num_rounds: int
  chunk_size: int
  max_steps: int

  def __post_init__(self) -> None:
    """Raises a ValueError if rounds are not whole chunks or too few."""
    _check_chunks("torch.", self.num_rounds, self.chunk_size)
    if self.history % self.chunk_size:
      raise ValueError(
        "torch.history must be whole chunks, got "
        f"history={self.history}, chunk_size={self.chunk_size}"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedSettings(streams.SyntheticSettings):
  """All that the study reads; see configs/bandit_speed/quick.py."""

  family: str
  mix: str
  bandits: list[str]
  seed_counts: list[int]
  loop: str
  num_rounds: int
  chunk_size: int
  max_seconds: float
  pyxab_max_seconds: float
  pyxab: Mapping[str, Mapping[str, Any]]
  one_tree: Mapping[str, Mapping[str, Any]]
  torch: TorchSettings
  regret_rounds: int
  regret_seeds: int

  def __post_init__(self) -> None:
    """Raises a ValueError if a number is out of range or a name unknown."""
    launch.names(self.family, known=FAMILIES, kind="family")
    launch.names(self.mix, known=mixes.PROCESSES, kind="mix")
    if self.loop not in rollout.LOOPS:
      raise ValueError(
        f"loop must be one of {rollout.LOOPS}, got {self.loop!r}"
      )
    _check_chunks("", self.num_rounds, self.chunk_size)


def read(config: ml_collections.ConfigDict) -> SpeedSettings:
  """The config as records.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  known = {*bandits.REGISTRY, *config.methods} - {"oracle"}
  return records.read(
    SpeedSettings,
    config,
    bandits=launch.names(config.bandits, known=known, kind="bandit"),
    seed_counts=launch.counts(config.seed_counts, kind="seed_counts"),
    torch=TorchSettings(**config.torch),
  )


def _check_chunks(section: str, num_rounds: int, chunk_size: int) -> None:
  if chunk_size < 1 or num_rounds < MIN_CHUNKS * chunk_size:
    raise ValueError(
      f"{section}num_rounds must be at least {MIN_CHUNKS} chunks, got "
      f"num_rounds={num_rounds}, chunk_size={chunk_size}"
    )
