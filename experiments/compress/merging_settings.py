"""What the stage "merging" reads of the config."""

import dataclasses

import ml_collections

from experiments.common import launch, records
from tanbr_jax import compress
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Positive, Whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergingSettings(ranges.Checked):
  """The section `merging` of the config.

  Attributes:
    methods: names of `compress.MERGES`.
    recovery_methods: those that are trained for a few steps afterwards.
    recovery_steps: how many, 0 for none.
    recovery_rate: the learning rate.
  """

  methods: list[str]
  recovery_methods: list[str]
  recovery_steps: Whole
  recovery_rate: Positive


def read(config: ml_collections.ConfigDict) -> MergingSettings:
  """The section as a record; a ValueError of one line if a value is wrong."""
  section = config.merging
  names = {
    name: launch.names(section[name], known=compress.MERGES, kind="method")
    for name in ("methods", "recovery_methods")
  }
  return records.read_section(MergingSettings, config, "merging", **names)
