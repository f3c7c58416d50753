"""Pre-trains a mergeable model and shows what the choice of weights is worth.

  python -m experiments.pretrain --config=configs/pretrain/quick.py

Trains once for every seed (kept in the cache by configuration and text),
chooses merge weights on validation text, scores them on test text, writes the
run's folder and prints one table.
"""

import functools
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from experiments.common import launch
from tanbr_jax import data
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting
from tanbr_jax.training import mergeability, pretraining

COMMAND_LINE = launch.Flags(
  "configs/pretrain/quick.py", workdir="runs/pretrain_quick"
)
COLUMNS = (
  tables.Column("task_accuracy", "accuracy, one task", 4),
  tables.Column("task_loss", "loss, one task", 4),
  tables.Column("mix_accuracy", "accuracy, concentrated mixes", 4),
  tables.Column("mix_loss", "loss, concentrated mixes", 4),
)


def main() -> None:
  config = COMMAND_LINE.config
  if config.num_seeds < 1:
    raise ValueError(f"num_seeds must be at least 1, got {config.num_seeds}")
  seeds = range(config.first_seed, config.first_seed + config.num_seeds)
  cache = data.cache_dir(config.cache_dir or None)
  corpus = data.load_corpus(
    config.data.path or None, cache, context=config.pretrain.context
  )
  workdir, messages = reporting.open_workdir(
    COMMAND_LINE.workdir,
    config,
    seeds=seeds,
    corpus_fingerprint=corpus.fingerprint,
  )
  for message in (*corpus.messages, *messages):
    print(message)
  summaries = {
    f"seed_{seed}": run(
      config,
      corpus,
      seed=seed,
      cache_dir=cache,
      progress=COMMAND_LINE.progress,
    )
    for seed in seeds
  }
  summary = summarise(summaries)
  reporting.write_summary(workdir, summary)
  means = {k: v for k, v in summary.items() if not k.startswith("seed_")}
  tables.print_rows(tables.rows(means, COLUMNS))


def run(
  config: ml_collections.ConfigDict,
  corpus: data.Corpus,
  *,
  seed: int,
  cache_dir: Any = None,
  progress: bool = True,
) -> dict[str, float]:
  """Trains and measures one seed; returns the flat figures."""
  pretrain_config = pretraining.PretrainConfig(**config.pretrain, seed=seed)
  trained = pretraining.pretrain(
    pretrain_config, corpus, cache_dir=cache_dir, progress=progress
  )
  windows = functools.partial(_windows, corpus, config)
  found = mergeability.measure(
    trained.model,
    trained.params,
    choose_on=windows("validation"),
    score_on=windows("test"),
    task_weights=trained.task_weights,
    steps=config.search_steps,
    learning_rate=config.search_learning_rate,
  )
  summary = mergeability.summarise(found)
  if trained.seconds is not None:
    summary["train_seconds"] = trained.seconds
  return summary


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


def _windows(
  corpus: data.Corpus, config: ml_collections.ConfigDict, split: str
) -> Any:
  length = config.pretrain.context + 1
  text = data.from_arrays(corpus.splits[split], min_length=length)
  return data.evaluation_windows(text, config[f"{split}_windows"], length)


if __name__ == "__main__":
  launch.start(main, command_line=COMMAND_LINE)
