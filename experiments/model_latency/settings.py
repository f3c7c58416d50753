"""The config of the latency study as a record, whose values are checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.common import launch, records
from experiments.kernels.ceilings import TimingSettings
from experiments.model_latency.programs import Sizes
from tanbr_jax import models
from tanbr_jax.checks.ranges import Chance, NonNegative


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencySettings(TimingSettings):
  """All that the study reads; see configs/model_latency/quick.py."""

  models: list[str]
  changes: Mapping[str, Mapping[str, Any]]
  dtype: str
  implementation: str | None
  sizes: Sizes
  active_share: Chance
  max_seconds: NonNegative

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    for name in self.changes:
      launch.names(name, known=models.PRESETS, kind="model")
    for name in self.models:
      self.shape(name)

  def shape(self, name: str) -> models.DecoderConfig:
    """A preset with its changes."""
    changes = {"dtype": self.dtype, **self.changes.get(name, {})}
    return models.preset(name, **changes)


def read(config: ml_collections.ConfigDict) -> LatencySettings:
  """The config as a record.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  return records.read(
    LatencySettings,
    config,
    models=launch.names(config.models, known=models.PRESETS, kind="model"),
    implementation=config.implementation or None,
    sizes=records.read(Sizes, config),
  )
