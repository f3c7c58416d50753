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
        "first_seed": 4,
        "num_seeds": 2,
        "streams": {"quadratic/drift": group},
      }
      path = folder / f"{count}_{method}" / play_streams.FILE
      atomic.write_json(path, result)
  return folder


def test_files_of_different_methods_come_together(tmp_path):
  results = many_experts.collect(make_run(tmp_path))
  assert [row["num_experts"] for row in results["rows"]] == [8, 64]
  for row in results["rows"]:
    assert set(row["methods"]) == {"uniform", "random", "multitask_ts"}
  _, rows = many_experts.table(results).split("\n\n")
  cells = [line.strip("| ").split(" | ") for line in rows.splitlines()]
  assert cells[2][:6] == ["quadratic", "drift", "8", "40", "4 to 5", "10.0"]
  shown = dict(zip(cells[0][6:], cells[2][6:], strict=True))
  assert shown == {"`random`": "20.0 (2.00)", "`multitask_ts`": "5.0 (1.25)"}


def test_runs_of_other_lengths_are_rows_of_their_own(tmp_path):
  make_run(tmp_path / "a")
  make_run(tmp_path / "b", num_rounds=9)
  results = many_experts.collect(tmp_path)
  sizes = [(row["num_experts"], row["num_rounds"]) for row in results["rows"]]
  assert sizes == [(8, 9), (8, 40), (64, 9), (64, 40)]


def test_without_a_run_there_is_no_table(tmp_path):
  with pytest.raises(ValueError, match="holds no result.json"):
    many_experts.collect(tmp_path)


def test_ratios_need_their_baseline(tmp_path):
  make_run(tmp_path)
  path = tmp_path / "8_random" / play_streams.FILE
  result = workdir.read_json(path)
  result["num_experts"] = 9
  del result["streams"]["quadratic/drift"]["uniform"]
  atomic.write_json(path, result)
  with pytest.raises(ValueError, match="uniform.*'num_experts': 9"):
    many_experts.collect(tmp_path)


def test_the_readme_holds_what_the_committed_results_make():
  results = many_experts.RESULTS
  readme = results.with_name("README.md").read_text("utf-8")
  made = many_experts.table(workdir.read_json(results))
  assert readme_block.block(readme, many_experts.NAME) == made
