"""The config of the masking study as a record, whose values are checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.common import launch, records
from experiments.masking import rivals
from experiments.online import model_source
from experiments.online.model_source import ModelSettings, ModelSource
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Whole
from tanbr_jax.training.pretraining import PretrainConfig
from tanbr_jax.training.sparse_tuning import TuningConfig

# The model as it is, not fine-tuned; the fine-tuning without masks.
FULL, CONTROL = "full", "control"
SCORED = ("test", "validation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingSettings(ranges.Checked):
  """All that the study reads; see configs/masking/quick.py."""

  source: ModelSource
  num_seeds: Count
  first_seed: Whole
  scored: str
  test_windows: Count
  batch_size: Count
  calibration_windows: Count
  tuning: TuningConfig
  tuned: Mapping[str, TuningConfig]
  free: Mapping[str, Mapping[str, Any]]

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    if self.test_windows % self.batch_size:
      raise ValueError(
        "test_windows must be a multiple of batch_size, got test_windows="
        f"{self.test_windows}, batch_size={self.batch_size}"
      )
    if self.scored not in SCORED:
      raise ValueError(
        f"scored must be one of {SCORED}, got scored={self.scored!r}"
      )
    if CONTROL in self.tuned and self.tuned[CONTROL].method != "none":
      raise ValueError(
        f"tuned.{CONTROL} must have method='none', got method="
        f"{self.tuned[CONTROL].method!r}"
      )
    for name, options in self.free.items():
      rivals.check(name, options, known=(FULL, *self.tuned))
    if both := {*self.free, FULL} & {*self.tuned}:
      raise ValueError(f"names must differ, got {sorted(both)} twice")


def read(config: ml_collections.ConfigDict) -> MaskingSettings:
  """The config as a record.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  tuning = records.read_section(TuningConfig, config, "tuning")
  known = {field.name for field in dataclasses.fields(TuningConfig)}
  tuned = {}
  for name, changes in config.tuned.to_dict().items():
    if unknown := sorted(set(changes) - known):
      hint = launch.suggest(unknown[0], sorted(known))
      raise ValueError(f"unknown field tuned.{name}.{unknown[0]}{hint}")
    tuned[name] = dataclasses.replace(tuning, **changes)
  return records.read(
    MaskingSettings,
    config,
    source=_source(config),
    tuning=tuning,
    tuned=tuned,
    free=config.free.to_dict(),
  )


def _source(config: ml_collections.ConfigDict) -> ModelSource:
  if config.model.path:
    model = records.read_section(ModelSettings, config, "model", finetunes="")
    return dataclasses.replace(model_source.open_checkpoint(model), trains=True)
  return model_source.OfBytes(
    records.read_section(PretrainConfig, config, "pretrain")
  )
