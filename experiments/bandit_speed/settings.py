"""The config of the speed study as records, whose values are checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.common import launch, records, streams
from tanbr_jax import bandits
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, NonNegative, Whole
from tanbr_jax.environments import mixes
from tanbr_jax.environments.landscapes.families import FAMILIES
from tanbr_jax.online import rollout

MIN_CHUNKS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchSettings(ranges.Checked):
  """Rounds beside PyTorch."""

  history: Whole
  num_rounds: Count
  chunk_size: Count
  max_steps: Count

  def __post_init__(self) -> None:
    """Raises a ValueError if rounds are not whole chunks or too few."""
    super().__post_init__()
    _check_chunks(self.num_rounds, self.chunk_size)
    if self.history % self.chunk_size:
      raise ValueError(
        "history must be whole chunks, got "
        f"history={self.history}, chunk_size={self.chunk_size}"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedSettings(streams.SyntheticSettings):
  """All that the study reads; see configs/bandit_speed/quick.py."""

  family: str
  mix: str
  bandits: list[str]
  seed_counts: list[Count]
  loop: str
  num_rounds: Count
  chunk_size: Count
  max_seconds: NonNegative
  pyxab_max_seconds: NonNegative
  pyxab: Mapping[str, Mapping[str, Any]]
  one_tree: Mapping[str, Mapping[str, Any]]
  torch: TorchSettings
  regret_rounds: Whole
  regret_seeds: Count

  def __post_init__(self) -> None:
    """Raises a ValueError if a number is out of range or a name unknown."""
    super().__post_init__()
    launch.names(self.family, known=FAMILIES, kind="family")
    launch.names(self.mix, known=mixes.PROCESSES, kind="mix")
    if self.loop not in rollout.LOOPS:
      raise ValueError(
        f"loop must be one of {rollout.LOOPS}, got {self.loop!r}"
      )
    _check_chunks(self.num_rounds, self.chunk_size)


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
    torch=records.read_section(TorchSettings, config, "torch"),
  )


def _check_chunks(num_rounds: int, chunk_size: int) -> None:
  if num_rounds < MIN_CHUNKS * chunk_size:
    raise ValueError(
      f"num_rounds must be at least {MIN_CHUNKS} chunks, got "
      f"num_rounds={num_rounds}, chunk_size={chunk_size}"
    )
