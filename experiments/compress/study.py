"""Compares every way to choose experts on one model, one text and one budget.

  python -m experiments.compress --config=configs/compress/quick.py

Calibrates on windows that each seed draws, keeps the experts that each method
says at each sparsity, as specialists of every domain and as generalists, and
measures loss, accuracy and greedy continuations on test text; removes every
expert alone and ranks the scores by it; and takes bytes and decode times. Every
stage and seed is kept in the run's folder as soon as it is done, so that a run
that is started again goes on. Tables (Markdown and CSV), figures and
summary.json are made from these files alone.
"""

from pathlib import Path

import ml_collections
import tqdm

from experiments.compress import settings, stages, tables
from experiments.compress.stages import Study
from tanbr_jax import data
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic


def run(
  config: ml_collections.ConfigDict, *, workdir: str, progress: bool
) -> None:
  """Runs every stage of the config and writes the folder."""
  # First everything that can be wrong, before anything that takes long.
  found = settings.read(config)
  cache = data.cache_dir(found.cache_dir)
  corpus = found.source.read_text(found.data_path, cache)
  found.source.check_tasks(len(corpus.task_names))
  folder = reporting.open_workdir(
    workdir, config, seeds=found.seeds, corpus_fingerprint=corpus.fingerprint
  )
  for message in corpus.messages:
    print(message)
  made = found.source.make(corpus, cache_dir=cache, progress=progress)
  study = stages.prepare(found, corpus, made.model, made.params, folder)
  for stage in found.stages:
    for seed in found.seeds if stage in stages.BY_SEED else found.seeds[:1]:
      _keep(study, stage, seed, progress=progress)
  tables.write(folder)


def _keep(study: Study, stage: str, seed: int, *, progress: bool) -> None:
  """Runs a stage with a seed, unless its file is there."""
  path: Path = study.folder / f"{stage}-{seed}.json"
  if path.exists():
    atomic.read_json(path, strict=True)
    return
  name = f"{stage}, seed {seed}"
  with tqdm.tqdm(desc=name, disable=not progress) as bar:
    rows = stages.STAGES[stage](study, seed, bar.update)
  atomic.write_json(path, {"stage": stage, "seed": seed, "rows": rows})
