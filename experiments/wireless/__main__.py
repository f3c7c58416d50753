"""Experts on wireless nodes: what SiftMoE saves, and what it costs in loss.

  python -m experiments.wireless --config=configs/wireless/quick.py

Trains the model of bytes (or reads the cache, or a checkpoint), calibrates the
table, serves test text under every policy over the same realisations of places
and fades, and writes `results.npz`, `summary.json`, figures and a report.
"""

from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from experiments.common import launch
from experiments.wireless import (
  bounds,
  decisions,
  fast,
  figures,
  serving,
  slots,
  studies,
)
from experiments.wireless.settings import read
from tanbr_jax import data
from tanbr_jax.online import estimates
from tanbr_jax.report import html, tables
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

RESULTS = "results.npz"
COLUMNS = (
  tables.Column("loss", "loss, nats", 3),
  tables.Column("accuracy", "accuracy", 3),
  tables.Column("energy_mj", "energy, mJ a token", 3),
  tables.Column("dropped", "pairs dropped", 3),
  tables.Column("reward", "mean reward", 4),
  tables.Column("last_quarter", "last quarter", 4),
)


def run(
  config: ml_collections.ConfigDict, *, workdir: str, progress: bool
) -> None:
  """Runs all parts, writes the folder, prints the table."""
  settings = read(config)
  cache = data.cache_dir(settings.cache_dir)
  corpus = settings.source.read_text(settings.data_path, cache)
  settings.source.check_tasks(len(corpus.task_names))
  folder = reporting.open_workdir(
    workdir,
    config,
    seeds=[settings.seed],
    corpus_fingerprint=corpus.fingerprint,
  )
  made = settings.source.make(corpus, cache_dir=cache, progress=progress)
  text = serving.read_text(
    corpus,
    length=settings.tokens,
    realisations=settings.sweep.realisations,
    windows=settings.sweep.windows,
    calibration=settings.sweep.calibration_windows,
    seed=settings.seed,
  )
  ready = studies.prepare(settings, made.model, made.params, text)
  arrays: dict[str, np.ndarray] = {}
  summary: dict[str, Any] = dict(made.figures)
  jobs = [(f"curve/{n}/{v:g}", job) for n, v, job in studies.points(ready)]
  jobs += [
    (f"link/{field}/{n}/{v:g}", job)
    for field, n, v, job in studies.links(ready)
  ]
  for name, job in tqdm.tqdm(jobs, desc="policies", disable=not progress):
    served = job()
    for field, values in served._asdict().items():
      arrays[f"{name}:{field}"] = values
    summary |= _entries(name, served)
    _write(folder, arrays, summary)
  for row in fast.ratios(settings):
    name = f"fast/{row['slots']}/{row['bits_per_hz']:g}"
    arrays[f"{name}:ratio"] = row["drawn"]
    summary[f"{name}/expected_ratio"] = row["expected"]
    summary |= reporting.estimate_entries(
      f"{name}/ratio", estimates.mean(row["drawn"])
    )
  found = bounds.measure(ready)
  arrays |= {
    "bound:measured": found.measured,
    "bound:bound": found.bound,
    "bound:propagated": found.together,
    "bound:predicted": found.predicted,
  }
  for name, values in found.estimates.items():
    arrays[f"bound:estimate_{name}"] = values
  summary |= bounds.figures(found)
  for layer, value in enumerate(ready.sensitivities):
    summary[f"sensitivity/{layer}"] = float(value)
  for row in decisions.timing(ready):
    name = row.pop("case")
    summary |= {f"time/{name}/{key}": value for key, value in row.items()}
  summary |= figures.headline(arrays)
  # What is there is kept before the slots, which take longest.
  _write(folder, arrays, summary)
  if settings.slots.num_rounds:
    played, flat = slots.play(ready, corpus, folder=folder, progress=progress)
    arrays |= {
      f"slots/{name}:reward": one.expected_reward
      for name, one in played.items()
    }
    _write(folder, arrays, summary | flat)
  report(folder)


def _write(
  folder: Path, arrays: dict[str, np.ndarray], summary: dict[str, Any]
) -> None:
  atomic.write_arrays(folder / RESULTS, arrays)
  reporting.write_summary(folder, summary)


def _entries(name: str, served: serving.Served) -> dict[str, float]:
  found: dict[str, float] = {}
  for field, scale, key in (
    ("loss", 1, "loss"),
    ("accuracy", 1, "accuracy"),
    ("energy_j", 1e3, "energy_mj"),
    ("dropped", 1, "dropped"),
  ):
    values = getattr(served, field) * scale
    if np.isfinite(values).all():
      found |= reporting.estimate_entries(
        f"{name}/{key}", estimates.mean(values)
      )
  return found


def report(folder: Path) -> None:
  """Draws the figures from the folder's files and prints the table."""
  drawn = figures.draw(folder, atomic.read_arrays(folder / RESULTS)[0])
  summary = reporting.read_json(folder / reporting.SUMMARY)
  rows = tables.rows(summary, COLUMNS)
  tables.print_rows(rows)
  for key, value in summary.items():
    if key.startswith(("saved/", "time/", "bound/", "dominance/")):
      print(f"{key}: {value}")
  path = html.write_report(
    folder,
    title="Experts on wireless nodes",
    rows=rows,
    figures=drawn,
    notes=[
      "Means over realisations of places and fades with 95 % Student "
      "intervals. [R]: formulas and other methods are reconstructions."
    ],
  )
  print(f"report: {path}")


if __name__ == "__main__":
  # Policies run on the host, inside of programs: with few threads a program
  # that is dispatched asynchronously may wait for itself (jax-ml/jax 25861).
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  launch.start(
    run,
    config="configs/wireless/quick.py",
    workdir="runs/wireless_quick",
    has_bars=True,
  )
