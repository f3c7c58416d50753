"""The table of many experts, from results that are known."""

import pytest

from experiments import many_experts, play_streams
from experiments.common import readme_block
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic


def make_run(folder, num_rounds=40):
  """Results of two numbers of experts, in one file for each method."""
  figures = {
    "uniform": {"regret": 10.0, "worst": 1.0},
    "random": {"regret": 20.0, "worst": 2.0},
    "multitask_ts": {"regret": 5.0, "worst": 1.25},
  }
  for count in (64, 8):
    for method in ("random", "multitask_ts"):
      group = {name: figures[name] for name in ("uniform", method)}
      result = {
        "num_experts": count,
        "num_rounds": num_rounds,
        "num_seeds": 2,
        "streams": {"quadratic/drift": group},
      }
      path = folder / f"{count}_{method}" / play_streams.FILE
      atomic.write_json(path, result)
  return folder


def test_files_of_different_methods_come_together(tmp_path):
  results = many_experts.collect(make_run(tmp_path))
  group = results["experts"]["8"]["quadratic/drift"]
  assert set(group) == {"uniform", "random", "multitask_ts"}
  text = many_experts.table(results)
  caption, rows = text.split("\n\n")
  assert "40 slots" in caption and "2 seeds" in caption
  cells = [line.strip("| ").split(" | ") for line in rows.splitlines()]
  assert [row[2] for row in cells[2:]] == ["8", "64"]
  first, second = cells[0][4:]
  shown = {first: cells[2][4], second: cells[2][5]}
  assert shown == {"`random`": "20.0 (2.00)", "`multitask_ts`": "5.0 (1.25)"}
  assert cells[2][3] == "10.0"


def test_runs_that_make_no_table(tmp_path):
  with pytest.raises(ValueError, match=r"must hold runs .*got \[\]"):
    many_experts.collect(tmp_path)
  make_run(tmp_path / "a")
  make_run(tmp_path / "b", num_rounds=9)
  with pytest.raises(ValueError, match=r"got \[\(9, 2\), \(40, 2\)\]"):
    many_experts.collect(tmp_path)


def test_the_readme_holds_what_the_committed_results_make():
  results = many_experts.RESULTS
  readme = results.with_name("README.md").read_text("utf-8")
  made = many_experts.table(workdir.read_json(results))
  assert readme_block.block(readme, many_experts.NAME) == made
