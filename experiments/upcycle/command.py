"""Trains every recipe, writes its checkpoint, scores its forms.

The run's folder has `<recipe>_<seed>/`, a checkpoint that transformers loads
(Mixtral, for "dense" Llama) with `upcycle.json` beside its config, and
`<recipe>_<seed>.json` with its scores; started again with the same `--workdir`
it goes on with what is not there yet.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.upcycle import evaluation, text
from experiments.upcycle.settings import UpcycleSettings, read
from experiments.upcycle.text import Text
from tanbr_jax import data, models
from tanbr_jax.models.huggingface import reading
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic
from tanbr_jax.training import upcycling

RECORD = "upcycle.json"
COLUMNS = (
  tables.Column("loss", "loss", 4),
  tables.Column("accuracy", "accuracy", 4),
  tables.Column("licences_loss", "loss, licences", 4),
  tables.Column("licences_accuracy", "accuracy, licences", 4),
  tables.Column("seconds", "training, s", 0),
)


def run(
  config: ml_collections.ConfigDict, *, workdir: str, progress: bool
) -> None:
  """Trains, writes, scores and prints one table."""
  # First everything that can be wrong, before anything that takes long.
  settings = read(config)
  path = settings.path or models.find_smollm2()
  dense_config = reading.check(path, dtype="float32").model.config
  if dense_config.num_experts is not None:
    raise ValueError(f"{str(path)!r} must be a dense model, and has experts")
  longest = dense_config.context
  if longest is not None and settings.upcycle.context > longest:
    raise ValueError(
      "upcycle.context must be at most the model's, got upcycle.context="
      f"{settings.upcycle.context} for {longest}"
    )
  cache = data.cache_dir(settings.cache_dir)
  tokenizer = models.read_tokenizer(path)
  found = text.read(settings, tokenizer, dense_config.vocab_size, cache)
  for recipe in settings.recipes:
    settings.upcycle.check_recipe(recipe, len(found.task_names) - 1)
  folder = reporting.open_workdir(
    workdir,
    config,
    seeds=settings.seeds,
    corpus_fingerprint=found.fingerprint,
  )
  for message in found.messages:
    print(message)
  # The base model, and whatever is trained from it.
  dense, dense_params = models.from_pretrained(path, dtype="float32")
  if settings.evaluates:
    _base(settings, dense, dense_params, tokenizer, found, folder)
  for seed in settings.seeds:
    for recipe in settings.recipes:
      name = f"{recipe}_{seed}"
      if not (folder / name / RECORD).exists():
        _train(
          settings, recipe, seed, dense, dense_params, found, folder, progress
        )
      if settings.evaluates and not (folder / f"{name}.json").exists():
        is_first = seed == settings.first_seed
        _evaluate(settings, name, tokenizer, found, folder, is_first)
  if settings.evaluates:
    summary = summarise(settings, folder)
    summary["task_names"] = tables.csv_line(found.task_names)
    reporting.write_summary(folder, summary)
    means = {k: v for k, v in summary.items() if not k.startswith("seed_")}
    tables.print_rows(tables.rows(means, COLUMNS))


def _base(
  settings: UpcycleSettings,
  dense: models.Decoder,
  params: models.Params,
  tokenizer: Any,
  found: Text,
  folder: Path,
) -> None:
  """Scores of the model as it was, in the type that the others compute in."""
  if (folder / "base.json").exists():
    return
  dtype = settings.upcycle.dtype
  config = dataclasses.replace(dense.config, dtype=dtype)
  dense = dataclasses.replace(dense, config=config)
  params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
  written = evaluation.continue_prompts(
    settings, dense, params, tokenizer, {}, found.task_names
  )
  record = {
    "forms": {"itself": evaluation.score(dense, params, found)},
    "continued": written,
  }
  atomic.write_json(folder / "base.json", record)


def _train(
  settings: UpcycleSettings,
  recipe: str,
  seed: int,
  dense: models.Decoder,
  dense_params: models.Params,
  found: Text,
  folder: Path,
  progress: bool,
) -> None:
  """Trains a recipe and writes its checkpoint with a record beside it."""
  name = f"{recipe}_{seed}"
  trained = upcycling.train(
    settings.upcycle,
    recipe,
    dense,
    dense_params,
    found.train,
    seed=seed,
    checkpoint_dir=folder / "checkpoints" / name,
    progress=progress,
  )
  table = trained.task_weights
  record = {
    "recipe": recipe,
    "seed": seed,
    "seconds": trained.seconds,
    "task_names": found.task_names[:-1],
    "task_weights": None if table is None else np.asarray(table),
    "upcycle": dataclasses.asdict(settings.upcycle),
  }
  content = json.dumps(atomic.jsonable(record), indent=2) + "\n"
  origin = trained.model.origin
  side_files = (*origin.side_files, (RECORD, content.encode()))
  model = dataclasses.replace(
    trained.model,
    origin=dataclasses.replace(origin, side_files=side_files),
  )
  models.save_pretrained(model, trained.params, folder / name)
  # Optimiser states, several times the size of the model, are of no use now.
  shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)


def _evaluate(
  settings: UpcycleSettings,
  name: str,
  tokenizer: Any,
  found: Text,
  folder: Path,
  continues: bool,
) -> None:
  """Reads a checkpoint as anybody would, scores it, may continue prompts."""
  record = reporting.read_json(folder / name / RECORD)
  model, params = models.from_pretrained(folder / name)
  table = record["task_weights"]
  if table is not None:
    table = jnp.asarray(table, jnp.float32)
  if model.config.num_experts is None:
    scores = {"itself": evaluation.score(model, params, found)}
    weights: Mapping[str, np.ndarray] = {}
  else:
    scores, weights = evaluation.forms(settings, model, params, found, table)
  result = {
    "forms": scores,
    "weights": weights,
    "seconds": record["seconds"],
  }
  if continues:
    result["continued"] = evaluation.continue_prompts(
      settings, model, params, tokenizer, weights, found.task_names
    )
  atomic.write_json(folder / f"{name}.json", atomic.jsonable(result))


def summarise(settings: UpcycleSettings, folder: Path) -> dict[str, Any]:
  """Means over seeds by recipe and form, then each seed's own figures."""
  base = reporting.read_json(folder / "base.json")["forms"]["itself"]
  summary: dict[str, Any] = _flat("base", evaluation.means(base))
  by_seed = {}
  for recipe in settings.recipes:
    own: dict[str, list[dict[str, float]]] = {}
    for seed in settings.seeds:
      record = reporting.read_json(folder / f"{recipe}_{seed}.json")
      for form, scores in record["forms"].items():
        figures = evaluation.means(scores) | {"seconds": record["seconds"]}
        name = recipe if form == "itself" else f"{recipe}/{form}"
        own.setdefault(name, []).append(figures)
        by_seed |= _flat(f"seed_{seed}/{name}", figures)
    for name, several in own.items():
      summary |= _flat(
        name,
        {
          key: float(np.mean([one[key] for one in several]))
          for key in several[0]
        },
      )
  return summary | by_seed


def _flat(name: str, figures: Mapping[str, float]) -> dict[str, float]:
  return {f"{name}/{key}": value for key, value in figures.items()}
