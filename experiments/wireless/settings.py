"""The config of the wireless study as records, whose values are checked."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import ml_collections

from experiments.common import launch, records
from experiments.online import model_source
from experiments.online.model_source import ModelSettings, ModelSource
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  NonNegative,
  Positive,
  Range,
  Real,
  Whole,
)
from tanbr_jax.training.pretraining import PretrainConfig
from tanbr_jax.wireless.policies import POLICIES

# JESA is DES on subcarriers of its own choice, see `subcarriers`.
KNOBS = (*POLICIES, "jesa")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RadioSettings(ranges.Checked):
  """Nodes and links; see configs/wireless/quick.py."""

  bandwidth_hz: Positive
  deadline_s: Positive
  load_s: NonNegative
  compute_s: NonNegative
  local_compute_j: NonNegative
  num_local: Whole
  helper_power_dbm: Real
  most_power_dbm: Real
  noise_dbm_per_hz: Real
  path_loss_exponent: Positive
  fading_shape: Annotated[float, Range(1, ends="()")]
  radius_m: Positive
  bits_per_value: Count
  counts_downlink: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepSettings(ranges.Checked):
  """What is varied, and on how much text; see configs/wireless/quick.py."""

  budget_shares: tuple[NonNegative, ...]
  link_share: NonNegative
  table: str
  realisations: AtLeastTwo
  windows: Count
  tokens: Whole
  calibration_windows: Count
  bandwidth_factors: tuple[Positive, ...]
  deadline_factors: tuple[Positive, ...]
  num_slots: tuple[Count, ...]
  slot_bits_per_hz: tuple[Positive, ...]
  timing_repeats: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineSlots(ranges.Checked):
  """The stream of slots; see configs/wireless/quick.py."""

  num_rounds: Whole
  num_seeds: Count
  requests: Count
  joules_weight: NonNegative
  share: NonNegative
  methods: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WirelessSettings(ranges.Checked):
  """All that the study reads.

  Attributes:
    source: where the model comes from, as in the main job.
  """

  source: ModelSource
  pretrain: PretrainConfig
  radio: RadioSettings
  sweep: SweepSettings
  slots: OnlineSlots
  knobs: Mapping[str, Any]
  seed: Whole
  data_path: str | None
  cache_dir: str | None

  @property
  def tokens(self) -> int:
    """S, of a prefill."""
    return self.sweep.tokens or self.source.context

  def __post_init__(self) -> None:
    """Raises a ValueError if a policy is unknown or a knob out of range."""
    super().__post_init__()
    for name, values in self.knobs.items():
      Range(0).check(f"knobs.{name}", values)
      if name not in KNOBS:
        raise ValueError(
          f"unknown policy {name!r}{launch.suggest(name, KNOBS)}"
        )


def read(config: ml_collections.ConfigDict) -> WirelessSettings:
  """The config as a record.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  pretrain = records.read_section(
    PretrainConfig, config, "pretrain", seed=config.seed
  )
  model = records.read_section(ModelSettings, config, "model")
  source: Any = model_source.OfBytes(pretrain)
  if model.path:
    source = model_source.open_checkpoint(model)
  radio = records.read_section(RadioSettings, config, "radio")
  return records.read(
    WirelessSettings,
    config,
    source=source,
    pretrain=pretrain,
    radio=radio,
    sweep=records.read_section(SweepSettings, config, "sweep"),
    slots=records.read_section(OnlineSlots, config, "slots"),
    knobs={k: tuple(v) for k, v in config.knobs.items()},
    data_path=config.data.path or None,
    cache_dir=config.cache_dir or None,
  )
