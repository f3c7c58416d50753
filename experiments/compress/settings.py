"""The config of the study as records, whose values are checked."""

import dataclasses
from typing import Annotated

import ml_collections

from experiments.common import launch, records
from experiments.compress import merging_settings
from experiments.compress import methods as methods_of_study
from experiments.compress.merging_settings import MergingSettings
from experiments.online import model_source
from experiments.online.model_source import ModelSettings, ModelSource
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Positive, Range, Whole
from tanbr_jax.training.pretraining import PretrainConfig

STAGES = (
  *("methods", "samples", "own_text", "truth", "costs", "merging"),
  "headroom",
)
Sparsity = Annotated[float, Range(0, 1, "()")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadroomSettings(ranges.Checked):
  """The section `headroom` of the config.

  Attributes:
    search_steps: swaps that are tried for each domain.
    recovery_steps: of training, 0 for none.
    recovery_rate: the learning rate.
  """

  search_steps: Whole
  recovery_steps: Whole
  recovery_rate: Positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressSettings(ranges.Checked):
  """All that the study reads; see configs/compress/quick.py."""

  source: ModelSource
  pretrain: PretrainConfig
  merging: MergingSettings
  headroom: HeadroomSettings
  stages: list[str]
  methods: list[str]
  few_methods: list[str]
  sparsities: tuple[Sparsity, ...]
  match_sparsities: tuple[Sparsity, ...]
  num_seeds: Count
  first_seed: Whole
  calibration_windows: Count
  sample_counts: tuple[Count, ...]
  batch_size: Count
  max_samples: Count
  test_windows: Count
  prompts: Count
  new_tokens: Count
  decode_batches: tuple[Count, ...]
  latency_repeats: Count
  max_domains: Whole
  data_path: str | None
  cache_dir: str | None

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    if not self.sparsities:
      raise ValueError("sparsities must be one or more, got none")
    if extra := set(self.match_sparsities) - set(self.sparsities):
      raise ValueError(
        f"match_sparsities must be of {self.sparsities}, got {sorted(extra)}"
      )
    if self.new_tokens >= self.source.context:
      raise ValueError(
        "new_tokens must be below the context, got "
        f"new_tokens={self.new_tokens}, context={self.source.context}"
      )
    if not self.source.has_router:
      raise ValueError("fine-tunes have no router, by which experts are scored")

  @property
  def seeds(self) -> range:
    """The calibration seeds."""
    return range(self.first_seed, self.first_seed + self.num_seeds)


def read(config: ml_collections.ConfigDict) -> CompressSettings:
  """The config as records.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  pretrain = records.read_section(
    PretrainConfig, config, "pretrain", seed=config.model_seed
  )
  model = records.read_section(ModelSettings, config, "model")
  source = model_source.OfBytes(pretrain)
  if model.path:
    source = model_source.open_checkpoint(model)
  elif pretrain.model != "decoder":
    raise ValueError(
      "the study decodes: pretrain.model must be 'decoder', got "
      f"pretrain.model={pretrain.model!r}"
    )
  names = lambda text, known, kind: launch.names(  # noqa: E731
    text, known=known, kind=kind
  )
  return records.read(
    CompressSettings,
    config,
    source=source,
    pretrain=pretrain,
    merging=merging_settings.read(config),
    headroom=records.read_section(HeadroomSettings, config, "headroom"),
    stages=names(config.stages, STAGES, "stage"),
    methods=names(config.methods, methods_of_study.METHODS, "method"),
    few_methods=names(config.few_methods, methods_of_study.SCORED, "method"),
    data_path=config.data.path or None,
    cache_dir=config.cache_dir or None,
  )
