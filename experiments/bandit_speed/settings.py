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
  """Rounds beside PyTorch.

  Attributes:
    history: rounds learnt without training.
    num_rounds: rounds after them, all timed.
    chunk_size: rounds of a chunk, of both.
    max_steps: single samples that a round trains on.
  """

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
class SpeedSettings:
  """All that the study reads of its config.

  Attributes:
    synthetic: sizes, methods and the stream.
    family: of the rewards.
    mix: process of task mixes.
    bandits: names of the methods.
    seed_counts: numbers of seeds.
    loop: "vmap" or "map" over the seeds.
    num_rounds: most rounds of a method.
    chunk_size: rounds of a chunk.
    max_seconds: after which a method is stopped.
    pyxab_max_seconds: the same of PyXAB.
    pyxab: ours -> options of both.
    one_tree: ours -> options that make it as PyXAB's.
    torch: rounds beside PyTorch.
    regret_rounds: of NeuralUCB's presets; 0 leaves them out.
    regret_seeds: of the same.
  """

  synthetic: streams.SyntheticSettings
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
    rollout.check_loop(self.loop)
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
    synthetic=records.read(streams.SyntheticSettings, config),
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
