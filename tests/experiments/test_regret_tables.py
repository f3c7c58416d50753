"""The regret study's tables, from summaries that are written down here."""

import types

import pytest

from experiments import regret_tables
from experiments.common import readme_block
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic

CONFIG = {
  "num_rounds": 2000,
  "num_seeds": 16,
  "num_experts": 8,
  "families": "quadratic, network",
  "mixes": "drift",
  "bandits": "a,b",
  "baseline": "a",
  "figures": "curves",
  "settings": {},
}
STREAMS = "quadratic/drift", "network/drift"


def estimate(key, value, low, high):
  return {key: value, f"{key}_low": low, f"{key}_high": high}


def make_run(folder, summary, **changes):
  about = {
    "config": CONFIG | changes,
    "versions": {"jax": "0.0.1"},
    "device": "cpu x1",
  }
  atomic.write_json(folder / workdir.CONFIG, about)
  atomic.write_json(folder / workdir.SUMMARY, summary)
  return regret_tables.collect([folder])


def cells(text):
  caption, rows = text.split("\n\n")
  lines = [line.strip("| ").split(" | ") for line in rows.splitlines()]
  return caption, [lines[0], *lines[2:]]


def test_a_row_a_mix_and_method(tmp_path):
  summary = {"quadratic/drift/a/model_error": 1.0}
  for stream in STREAMS:
    summary |= estimate(f"{stream}/b/expected_regret", 1234.56, 1000, 1500)
    summary |= {f"{stream}/b/growth_exponent": 0.456}
  results = make_run(tmp_path, summary)
  assert "quadratic/drift/a/model_error" not in results["summary"]
  caption, rows = cells(regret_tables.table(results))
  assert "2,000 slots, 16 seeds; jax 0.0.1, cpu x1" in caption
  assert rows == [
    ["mix", "method", "quadratic", "exponent", "network", "exponent"],
    ["drift", "`a`", "-", "-", "-", "-"],
    ["drift", "`b`", *["1,235 [1,000, 1,500]", "0.46"] * 2],
  ]


def test_a_row_a_variant(tmp_path):
  summary = estimate("network/drift/b/ratio", 0.5, 0.4, 0.612)
  summary |= estimate("quadratic/drift/a/expected_regret", 20, 18, 22)
  results = make_run(tmp_path, summary, figures="ablation")
  _, rows = cells(regret_tables.table(results))
  assert rows == [
    ["variant", "quadratic, drift", "over a", "network, drift", "over a"],
    ["a", "20 [18, 22]", "1", "-", "1"],
    ["b", "-", "-", "-", "0.50 [0.40, 0.61]"],
  ]


def test_runs_of_one_study_are_put_together(tmp_path):
  """Other methods, seeds and devices; fewer seeds are said in the cell."""
  first, second = tmp_path / "first", tmp_path / "second"
  make_run(first, {"quadratic/drift/a/expected_regret": 7.0}, bandits="a")
  make_run(
    second,
    {"quadratic/drift/b/expected_regret": 8.0},
    bandits="b",
    num_seeds=4,
  )
  results = regret_tables.collect([first, second])
  caption, rows = cells(regret_tables.table(results))
  assert "16 seeds if not said; jax 0.0.1, cpu x1." in caption
  assert [row[2] for row in rows] == ["quadratic", "7", "8 (4 seeds)"]
  make_run(second, {}, num_rounds=5)
  with pytest.raises(ValueError, match="is of another study: .*: 5, "):
    regret_tables.collect([first, second])


def test_a_row_a_setting(tmp_path):
  summary = {"quadratic/drift/both/a/expected_regret": 7.0}
  settings = {"clean": {}, "both": {"requests": 3}}
  results = make_run(tmp_path, summary, settings=settings, families="quadratic")
  _, rows = cells(regret_tables.table(results))
  assert rows == [
    ["stream", "setting", "`a`", "`b`"],
    ["quadratic, drift", "clean", "-", "-"],
    ["quadratic, drift", "both", "7", "-"],
  ]


def test_a_run_that_is_not_finished(tmp_path):
  with pytest.raises(ValueError, match=r"no config.json: not a finished run"):
    regret_tables.collect([tmp_path])


def test_the_readme_holds_what_the_committed_results_make():
  results = regret_tables.RESULTS
  readme = results.with_name("README.md").read_text("utf-8")
  for study, kept in workdir.read_json(results).items():
    assert readme_block.block(readme, study) == regret_tables.table(kept)


def test_results_without_a_table_are_not_kept(tmp_path, monkeypatch):
  kept = tmp_path / "studies.json"
  kept.write_text("{}")
  kept.with_name("README.md").touch()
  given = types.SimpleNamespace(run="a", study="curves", write=False)
  monkeypatch.setattr(regret_tables, "RESULTS", kept)
  monkeypatch.setattr(regret_tables.flags, "FLAGS", given)
  monkeypatch.setattr(regret_tables, "find", lambda run: [])
  monkeypatch.setattr(regret_tables, "collect", lambda runs: {})
  with pytest.raises(KeyError):
    regret_tables.main([""])
  assert kept.read_text() == "{}"
