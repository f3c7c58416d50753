import csv
import dataclasses
import os

import hostile_names
import numpy as np
import pytest
import toy

from experiments.common import drawing
from tanbr_jax import data
from tanbr_jax.online import trace
from tanbr_jax.plots import curves, parts
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting

COLUMNS = (tables.Column("mean_reward", "mean reward", 2),)
FIGURES = {
  *("regret.png", "growth.png", "reward.png", "weights.png"),
  "optimal_play.png",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A finished run whose tasks and methods have names of every kind."""
  folder = tmp_path_factory.mktemp("run")
  num_tasks = len(hostile_names.NAMES)
  for i, name in enumerate(hostile_names.NAMES):
    path = os.path.join(os.fsencode(folder / "text"), os.fsencode(name))
    os.makedirs(path)
    with open(os.path.join(path, os.fsencode(name)), "wb") as file:
      file.write(b"%d " % i * 99)
  corpus = data.load_corpus(folder / "text", context=8)
  assert set(corpus.task_names) == set(hostile_names.NAMES)
  rng = np.random.default_rng(0)
  traces = {}
  for name in ("tanbr", *hostile_names.NAMES[4:6]):
    played = rng.uniform(0.5, 0.9, (2, 40))
    traces[name] = dataclasses.replace(
      toy.make_trace(played, played, np.ones((2, 40))),
      merge_weights=np.full((2, 40, 3), 1 / 3, np.float32),
      task_mix=rng.dirichlet(np.ones(num_tasks), (2, 40)).astype(np.float32),
    )
  reporting.open_workdir(folder, {"path": corpus.task_names[0]}, seeds=[0, 1])
  trace.save(folder / reporting.TRACE, traces)
  summary = {
    f"{name}/{key}": value
    for name, one in traces.items()
    for key, value in reporting.summarise(one).items()
  }
  summary["task_names"] = tables.csv_line(corpus.task_names)
  reporting.write_summary(folder, summary)
  return folder


def draw(folder):
  summary = reporting.read_json(folder / reporting.SUMMARY)
  traces = trace.load(folder / reporting.TRACE)
  figures = drawing.draw_stream(
    folder, traces, task_names=tables.read_csv_line(summary["task_names"])
  )
  drawing.finish(
    folder,
    title=hostile_names.NAMES[7],
    columns=COLUMNS,
    figures=figures,
    notes=hostile_names.NAMES,
    methods=list(traces),
  )
  return {figure.file for figure in figures}


def test_names_of_every_kind_are_drawn_and_written(folder, capsys):
  assert draw(folder) == FIGURES
  assert all((folder / name).stat().st_size > 5000 for name in FIGURES)
  summary = reporting.read_json(folder / reporting.SUMMARY)
  summary["task_names"].encode()
  assert len(next(csv.reader([summary["task_names"]]))) == len(
    hostile_names.NAMES
  )
  page = (folder / "report.html").read_text("utf-8")
  assert "<b>" not in page and "&lt;b&gt;&amp;amp;" in page
  assert r"no UTF-8 \udcff\udcfe" in page and "\u202e" not in page
  table = capsys.readouterr().out.splitlines()
  assert len(table) == 2 + 3 + 1 and all(map(str.isprintable, table))


def test_a_figure_that_fails_costs_a_line(folder, monkeypatch, caplog):
  def fail(traces, **options):
    raise RuntimeError("of this\nkind")

  monkeypatch.setattr(curves, "reward_and_mix", fail)
  # Drawing is tested above, and takes long.
  monkeypatch.setattr(parts, "save", lambda _, path: path.write_bytes(b"png"))
  with caplog.at_level("WARNING"):
    assert draw(folder) == FIGURES - {"reward.png"}
  (record,) = caplog.records
  assert record.getMessage() == (
    "figure reward.png is not drawn: RuntimeError: of this kind"
  )
  assert "reward.png" not in (folder / "report.html").read_text("utf-8")
