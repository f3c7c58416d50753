"""The table of many experts, from runs whose regret is known."""

import numpy as np
import pytest

from experiments import many_experts
from experiments.common import readme_block
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic

# A slot's gap of each method; two seeds, the mean over them is what counts.
GAPS = {"uniform": 0.25, "random": 0.5}


def make_run(folder, monkeypatch, num_rounds=40):
  """Two finished runs: learner loses twice as much at first, then nothing."""
  slots = np.arange(num_rounds)
  learner = np.where(slots < num_rounds // 2, 0.5, 0.0)
  gaps = {name: np.full(num_rounds, gap) for name, gap in GAPS.items()}
  gaps["multitask_ts"] = learner
  traces = {
    f"quadratic/drift/{name}": np.cumsum([gap - 0.125, gap + 0.125], axis=1)
    for name, gap in gaps.items()
  }
  monkeypatch.setattr(many_experts.trace, "load", lambda path: traces)
  monkeypatch.setattr(many_experts.regret, "expected", lambda one: one)
  for count in (64, 8):
    path = folder / str(count)
    config = {"num_experts": count, "num_rounds": num_rounds, "num_seeds": 2}
    atomic.write_json(path / workdir.CONFIG, {"config": config})
    (path / workdir.TRACE).touch()
  return folder


def test_the_worst_ratio_is_that_of_the_mean_regrets(tmp_path, monkeypatch):
  results = many_experts.collect(make_run(tmp_path, monkeypatch))
  group = results["experts"]["8"]["quadratic/drift"]
  assert group["uniform"] == {"regret": 10.0, "worst": 1.0}
  # .5 a slot for 20 slots: twice the plain average's until then, level at last.
  assert group["multitask_ts"] == {"regret": 10.0, "worst": 2.0}
  text = many_experts.table(results)
  caption, rows = text.split("\n\n")
  assert "40 slots" in caption and "2 seeds" in caption
  cells = [line.strip("| ").split(" | ") for line in rows.splitlines()]
  assert [row[2] for row in cells[2:]] == ["8", "64"]
  assert cells[0][4:] == ["`random`", "`multitask_ts`"]
  assert cells[2][3:] == ["10.0", "20.0 (2.00)", "10.0 (2.00)"]


def test_runs_that_make_no_table(tmp_path, monkeypatch):
  with pytest.raises(ValueError, match=r"must hold finished runs .*got \[\]"):
    many_experts.collect(tmp_path)
  folder = make_run(tmp_path, monkeypatch)
  other = {"config": {"num_experts": 8, "num_rounds": 9, "num_seeds": 2}}
  atomic.write_json(folder / "8" / workdir.CONFIG, other)
  with pytest.raises(ValueError, match=r"got \[\(9, 2\), \(40, 2\)\]"):
    many_experts.collect(folder)


def test_the_readme_holds_what_the_committed_results_make():
  results = many_experts.RESULTS
  readme = results.with_name("README.md").read_text("utf-8")
  made = many_experts.table(workdir.read_json(results))
  assert readme_block.block(readme, many_experts.NAME) == made
