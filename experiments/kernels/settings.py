"""The config of the kernel study as a record, whose values are checked."""

import dataclasses

import ml_collections

from experiments.common import launch, records
from experiments.kernels.ceilings import TimingSettings
from experiments.kernels.shapes import SHAPES
from tanbr_jax.checks.ranges import Count, NonNegative, Whole

GROUPS = (
  "merging",
  "routed",
  "merged",
  "masked",
  "parts",
  "forced",
  "shipped",
  "torch",
  "transformers",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelSettings(TimingSettings):
  """All that the study reads of its config; see configs/kernels/gpu.py."""

  shapes: list[str]
  tokens: list[Count]
  groups: list[str]
  max_seconds: NonNegative
  xla_max_tokens: Whole
  threads: Count


def read(config: ml_collections.ConfigDict) -> KernelSettings:
  """The config as a record.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  return records.read(
    KernelSettings,
    config,
    shapes=launch.names(config.shapes, known=SHAPES, kind="shape"),
    tokens=launch.counts(config.tokens, kind="tokens"),
    groups=launch.names(config.rows, known=GROUPS, kind="row"),
  )
