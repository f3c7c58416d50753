"""Pre-trains a mergeable model and shows what the choice of weights is worth.

  python -m experiments.pretrain --config=configs/pretrain/quick.py

Trains once for every seed (kept in the cache by configuration and text),
chooses merge weights on validation text, scores them on test text, writes the
run's folder and prints one table.
"""

import dataclasses
from collections.abc import Mapping

import ml_collections
import numpy as np

from experiments.common import launch, records
from tanbr_jax import data
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Positive, Whole
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting
from tanbr_jax.training import mergeability, pretraining
from tanbr_jax.training.pretraining import PretrainConfig

COLUMNS = (
  tables.Column("task_accuracy", "accuracy, one task", 4),
  tables.Column("task_loss", "loss, one task", 4),
  tables.Column("mix_accuracy", "accuracy, concentrated mixes", 4),
  tables.Column("mix_loss", "loss, concentrated mixes", 4),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainSettings(ranges.Checked):
  """All that the study reads; see configs/pretrain/quick.py."""

  pretrain: PretrainConfig
  num_seeds: Count
  first_seed: Whole
  validation_windows: Count
  test_windows: Count
  search_steps: Count
  search_learning_rate: Positive


def read(config: ml_collections.ConfigDict) -> PretrainSettings:
  """The config as a record.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  pretrain = records.read_section(PretrainConfig, config, "pretrain")
  return records.read(PretrainSettings, config, pretrain=pretrain)


def run(
  config: ml_collections.ConfigDict, *, workdir: str, progress: bool
) -> None:
  """Trains and scores every seed, writes the folder, prints the table."""
  # First everything that can be wrong, before anything that takes long.
  settings = read(config)
  pretrain = settings.pretrain
  cache = data.cache_dir(config.cache_dir or None)
  corpus = data.load_corpus(
    config.data.path or None, cache, context=pretrain.context
  )
  pretrain.check_tasks(len(corpus.task_names))
  # Weights are chosen on validation text and scored on test text.
  windows = {
    split: data.evaluation_windows(
      data.from_arrays(corpus.splits[split], min_length=pretrain.context + 1),
      num_windows,
      pretrain.context + 1,
    )
    for split, num_windows in (
      ("validation", settings.validation_windows),
      ("test", settings.test_windows),
    )
  }
  # The folder refuses a run of another config before any training.
  seeds = range(settings.first_seed, settings.first_seed + settings.num_seeds)
  folder = reporting.open_workdir(
    workdir, config, seeds=seeds, corpus_fingerprint=corpus.fingerprint
  )
  for message in corpus.messages:
    print(message)
  # Each seed trains a model of its own and scores it.
  summaries = {}
  for seed in seeds:
    trained = pretraining.pretrain(
      dataclasses.replace(pretrain, seed=seed),
      corpus,
      cache_dir=cache,
      progress=progress,
    )
    found = mergeability.score_choices(
      trained.model,
      trained.params,
      choose_on=windows["validation"],
      score_on=windows["test"],
      task_weights=trained.task_weights,
      steps=settings.search_steps,
      learning_rate=settings.search_learning_rate,
    )
    summaries[f"seed_{seed}"] = mergeability.summarise(found)
    if trained.seconds is not None:
      summaries[f"seed_{seed}"]["train_seconds"] = trained.seconds
  # Means over seeds and each seed's own figures.
  summary = summarise(summaries)
  reporting.write_summary(folder, summary)
  means = {k: v for k, v in summary.items() if not k.startswith("seed_")}
  tables.print_rows(tables.rows(means, COLUMNS))


def summarise(by_seed: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  """Means over seeds, then every seed's own figures."""
  keys = next(iter(by_seed.values()))
  summary = {
    key: float(np.mean([one[key] for one in by_seed.values() if key in one]))
    for key in keys
  }
  for seed, one in by_seed.items():
    summary |= {f"{seed}/{key}": value for key, value in one.items()}
  return summary


if __name__ == "__main__":
  launch.start(
    run,
    config="configs/pretrain/quick.py",
    workdir="runs/pretrain_quick",
    has_bars=True,
  )
