import pytest

from experiments import algorithm_table
from experiments.common import readme_block
from tanbr_jax.bandits.registry import CATALOGUE, TOLD
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic


def make_run(folder, streams=algorithm_table.STREAMS):
  """A finished run of three methods, with a key that the table does not use."""
  summary = {}
  for stream in streams:
    for method, value in (("tanbr", 39.4), ("uniform", 2056.7), ("hct", 300.0)):
      summary |= {
        f"{stream}/{method}/expected_regret": value,
        f"{stream}/{method}/expected_regret_low": value - 10,
        f"{stream}/{method}/expected_regret_high": value + 10,
        f"{stream}/{method}/slots_per_second": 100 * value,
        f"{stream}/{method}/ratio": 0.1,
      }
  summary[f"{streams[-1]}/tanbr/slots_per_second"] = 1234.5
  config = {"num_rounds": 5000, "num_seeds": 16}
  atomic.write_json(
    folder / "config.json", {"config": config, "device": "cpu x1"}
  )
  workdir.write_summary(folder, summary)
  return folder


def test_table_of_a_run(tmp_path):
  results = algorithm_table.collect(make_run(tmp_path))
  assert not any("ratio" in key for key in results["summary"])
  text = algorithm_table.table(results)
  caption, rows = text.split("\n\n")
  assert "5,000 rounds" in caption and "16 seeds" in caption
  cells = [line.strip("| ").split(" | ") for line in rows.splitlines()]
  names = [row[0].strip("`") for row in cells[2:]]
  told = [row[2] for row in cells[2:]]
  assert list(dict.fromkeys(told)) == list(TOLD)
  assert told == sorted(told, key=TOLD.index)
  # The least regret first within those that are told the same, what was not
  # run last.
  assert names[0] == "uniform" and names[-1] == "oracle"
  assert names[told.index("rewards") :][:2] == ["tanbr", "hct"]
  assert sorted(names) == sorted(CATALOGUE)
  assert all(len(row) == 7 for row in cells)
  # The lower of the two streams' rates.
  rows = dict(zip(names, cells[2:], strict=True))
  assert rows["tanbr"][4:] == ["39 [29, 49]", "39 [29, 49]", "1,234"]
  assert "2025" in rows["tanbr"][1]
  assert rows["meta_gradient"][4:] == ["-", "-", "-"]
  assert rows["oracle"][4:6] == ["0 by definition"] * 2


def test_runs_that_make_no_table(tmp_path):
  with pytest.raises(ValueError, match="no config.json: not a finished run"):
    algorithm_table.collect(tmp_path)
  make_run(tmp_path, streams=["quadratic/drift"])
  with pytest.raises(ValueError, match="no stream 'network/drift'"):
    algorithm_table.collect(tmp_path)


def test_the_readme_holds_what_the_committed_results_make():
  results = algorithm_table.RESULTS
  readme = results.with_name("README.md").read_text("utf-8")
  made = algorithm_table.table(workdir.read_json(results))
  assert readme_block.block(readme, algorithm_table.NAME) == made
