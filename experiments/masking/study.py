"""Quality against active experts: BEAM, the control, and the rivals.

For every seed the same trained model is fine-tuned by each entry of
`config.tuned` (the seed is that of its batches); `config.free` puts
training-free methods on the models so made. Each is scored on test windows of
every task (validation windows, where `config.scored` says so), and counted:
pairs, distinct experts of a decoding step of a batch, ranks, load. A row is on
disk when it is there; a run that is started again goes on after the last
seed's last tuning.

Writes `rows.json` (everything, by seed and name), `summary.json` (means over
seeds with intervals), figures and a table in Markdown.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments.common import drawing
from experiments.masking import report, rivals, settings
from experiments.masking.evaluate import Evaluation, evaluate
from tanbr_jax import data, models
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic
from tanbr_jax.training import sparse_tuning

ROWS = "rows.json"


def run(
  config: ml_collections.ConfigDict, *, workdir: str, progress: bool
) -> None:
  """Tunes, scores, writes the folder and prints the table."""
  # First everything that can be wrong, before anything that takes long.
  found = settings.read(config)
  source = found.source
  cache = data.cache_dir(config.cache_dir or None)
  corpus = source.read_text(config.data.path or None, cache)
  source.check_tasks(len(corpus.task_names))
  length = source.context + 1
  text = {
    split: data.from_arrays(
      corpus.splits[split], min_length=length, stride=corpus.stride
    )
    for split in ("train", "validation", "test")
  }
  scored = data.evaluation_windows(
    text[found.scored], found.test_windows, length
  )
  calibration = data.evaluation_windows(
    text["validation"], found.calibration_windows, length
  )
  calibration = data.token_ids(calibration.reshape(-1, length)[:, :-1])
  seeds = range(found.first_seed, found.first_seed + found.num_seeds)
  folder = reporting.open_workdir(
    workdir, config, seeds=seeds, corpus_fingerprint=corpus.fingerprint
  )
  for message in corpus.messages:
    print(message)
  # The model, then every seed's tunings and what is put on them.
  model, params, _, figures = source.make(
    corpus, cache_dir=cache, progress=progress
  )
  for tuning in found.tuned.values():
    tuning.check_model(model)
  study = _Study(
    settings=found,
    model=model,
    params=params,
    text=text["train"],
    scored=scored,
    calibration=calibration,
    names=corpus.task_names,
    rows=_Rows(Path(folder) / ROWS),
    progress=progress,
  )
  for seed in seeds:
    study.run_seed(seed)
  report.write(folder, study.rows.found, figures)
  with drawing.surviving("quality.png"):
    report.draw(Path(folder) / "quality.png", study.rows.found)


class _Rows:
  """Rows by "seed/name", each on disk as soon as it is there."""

  def __init__(self, path: Path) -> None:
    self._path = path
    self.found: dict[str, dict[str, Any]] = {}
    if path.exists():
      self.found = atomic.read_json(path, strict=True)

  def add(self, key: str, row: dict[str, Any]) -> None:
    self.found[key] = atomic.jsonable(row)
    atomic.write_json(self._path, self.found)


@dataclasses.dataclass(frozen=True)
class _Study:
  """One model, its text, and the rows so far."""

  settings: settings.MaskingSettings
  model: models.Model
  params: models.Params
  text: data.TaskText
  scored: jax.Array
  calibration: jax.Array
  names: tuple[str, ...]
  rows: _Rows
  progress: bool

  def run_seed(self, seed: int) -> None:
    """All rows of a seed that are not there yet."""
    every = {settings.FULL: None, **self.settings.tuned}
    for name, tuning in every.items():
      free = {
        key: options
        for key, options in self.settings.free.items()
        if options["on"] == name
      }
      if all(f"{seed}/{key}" in self.rows.found for key in (name, *free)):
        continue
      self._run_one(seed, name, tuning, free)

  def _run_one(
    self,
    seed: int,
    name: str,
    tuning: sparse_tuning.TuningConfig | None,
    free: dict[str, Any],
  ) -> None:
    """Tunes one model and scores it, alone and with what is put on it."""
    start = time.perf_counter()
    tuned = sparse_tuning.Tuned(self.params, {}, None, 0.0)
    if tuning is not None:
      tuned = sparse_tuning.tune(
        dataclasses.replace(tuning, seed=seed),
        self.model,
        self.params,
        self.text,
        context=self.settings.source.context,
        progress=self.progress,
      )
      jax.block_until_ready(tuned.params)
    seconds = time.perf_counter() - start
    given = {"beta": tuned.beta, "seconds": seconds}
    if tuning is not None:
      given |= {"method": tuning.method, "trains": tuning.trains}
    self._score(f"{seed}/{name}", tuned.params, tuned.reroute, given)
    made = rivals.Calibrated(
      self.model,
      tuned.params,
      self.calibration,
      after=tuned.reroute,
      num_steps=self.settings.source.context,
    )
    for key, options in free.items():
      reroute = made.make(options)
      self._score(f"{seed}/{key}", tuned.params, reroute, dict(options))

  def _score(
    self,
    key: str,
    params: models.Params,
    reroute: models.Reroute | None,
    given: dict[str, Any],
  ) -> None:
    start = time.perf_counter()
    found = evaluate(
      self.model,
      params,
      self.scored,
      batch_size=self.settings.batch_size,
      reroute=reroute,
    )
    took = time.perf_counter() - start
    row = given | _row(found, self.names) | {"scoring_seconds": took}
    self.rows.add(key, row)
    print(
      f"{key}: accuracy {row['accuracy']:.4f}, loss {row['loss']:.4f}, "
      f"{row['active']:.2f} active, {row['distinct']:.1f} distinct",
      flush=True,
    )


def _row(found: Evaluation, names: tuple[str, ...]) -> dict[str, Any]:
  row = {
    "accuracy": float(np.mean(found.accuracy)),
    "loss": float(np.mean(found.loss)),
    "active": found.mean_active,
    "distinct": float(np.mean(found.distinct)),
    # The largest expert's share of the pairs, against an even one.
    "imbalance": float(np.mean(found.load.max(axis=1) * found.load.shape[1])),
    "by_rank": found.active_by_rank.mean(axis=0).tolist(),
    "by_layer": found.active_by_layer.tolist(),
  }
  for quantity in ("accuracy", "loss", "active"):
    values = getattr(found, quantity)
    row[f"{quantity}_by_task"] = dict(zip(names, values.tolist(), strict=True))
  if len(found.count_by_token) == models.ByteLMConfig.vocab_size:
    row["by_class"] = report.by_class(
      found.active_by_token, found.count_by_token
    )
  return row
