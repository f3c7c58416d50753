"""Tables and points of many runs' folders, by hand."""

import json

import pytest

from experiments import online_evidence
from experiments.common import readme_block
from experiments.online import cost_figure, evidence
from tanbr_jax.report import workdir

METHODS = [name for names in evidence.TOLD.values() for name in names]


def write(folder, device="gpu x1", **regrets):
  folder.mkdir(parents=True)
  summary = {"oracle_search_error": 0.1}
  for method, value in regrets.items():
    key = f"{method}/expected_regret"
    summary |= {key: value, f"{key}_low": value - 1, f"{key}_high": value + 1}
    summary[f"{method}/simple_regret"] = value / 500
  about = {
    "config": {"num_rounds": 1000, "num_seeds": 16},
    "versions": {"jax": "0.10"},
    "device": device,
  }
  (folder / "summary.json").write_text(json.dumps(summary))
  (folder / "config.json").write_text(json.dumps(about))


@pytest.fixture
def kept(tmp_path):
  each = {method: 10.0 * i for i, method in enumerate(METHODS, 1)}
  write(tmp_path / "mixes" / "drift_16", **each, oracle=0)
  write(tmp_path / "mixes" / "fixed_4", uniform=3.25)
  write(tmp_path / "rewards" / "judge_agreement", meta_gradient=-7.5)
  write(tmp_path / "delays", tanbr_late_10=66.5)
  write(tmp_path / "signals" / "gradient_2", meta_gradient=2.0, oracle=0)
  write(tmp_path / "signals" / "entropy", meta_gradient=70.0)
  write(tmp_path / "signals" / "agreement", device="cpu", meta_gradient=1.0)
  rows = {
    "merged": 2.0,
    "merged, usage": 2.1,
    "routed": 5.0,
    "merged, gradient of 16": 8.0,
    "merged, gradient of 2": 3.0,
    "merged, entropy of 16": 9.0,
    "merged, agreement of 16": 10.0,
    "learner, meta_gradient": 0.5,
    "learner, tanbr": 1.0,
  }
  costs = {"rows": [{"slot": k, "median": v} for k, v in rows.items()]}
  (tmp_path / "costs_cpu").mkdir()
  path = tmp_path / "costs_cpu" / "signal_costs.json"
  path.write_text(json.dumps(costs))
  return evidence.collect(tmp_path)


def test_tables_show_what_the_runs_found(kept):
  text = evidence.text(kept)
  assert text.startswith("Regret over 1,000 slots, 16 seeds")
  assert "anew: on gpu x1: delays, mixes/drift_16, " in text
  assert "; on cpu: signals/agreement." in text
  rows = {
    tuple(cells[:2]): cells[2:]
    for line in text.splitlines()
    if line.startswith("|")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
  }
  assert rows["fixed", "4"] == ["-"] * 8 + ["3.2 [2.2, 4.2]"]
  assert rows["drift", "16"][0] == "10.0 [9.0, 11.0]"
  judged = rows["meta_gradient on agreement", "the routed model"]
  assert judged == [
    "1.0 [0.0, 2.0]; 2.0",
    "-",
    "-7.5 [-8.5, -6.5]; -15.0",
    "-",
    "-",
  ]
  late = rows["tanbr", "rewards"]  # the table of delays is the later one
  assert late == ["40.0 [39.0, 41.0]", "-", "66.5 [65.5, 67.5]", "-"]
  assert rows["tanbr", "1.00 ms (0.50 merged slots)"] == []


def test_extra_compute_is_the_signal_and_the_learner(kept):
  drawn = evidence.panels(kept)
  (title, found), (_, others) = drawn.items()
  assert title == "the model trained on gpu x1, costs on cpu"
  extra = {label: cost for label, (_, cost, _) in found.items()}
  # A merged slot takes 2: (8 - 2 + .5) / 2, (3 - 2 + .5) / 2 and so on.
  expected = {
    "meta_gradient": 3.25,
    "meta_gradient, 2 of 16": 0.75,
    "meta_gradient on entropy": 3.75,
    "ts_grad": 3.0,
    "tanbr": 0.5,
    "routed": 1.5,
    "follow_usage": 0.05,
    "uniform": 0.0,
  }
  assert {k: extra[k] for k in expected} == pytest.approx(expected)
  assert "oracle" not in found
  # Another device's model is another.
  assert set(others) == {"meta_gradient on agreement"}
  assert others["meta_gradient on agreement"][1] == 4.25
  assert found["tanbr"][0] == "rewards" and found["tanbr"][2][0] == 40
  (axes,) = cost_figure.draw({"cpu": found}, groups=list(evidence.TOLD)).axes
  assert {text.get_text() for text in axes.texts} == set(found)
  assert len({text.get_position() for text in axes.texts}) == len(found)


def test_a_folder_without_runs_is_refused(tmp_path):
  with pytest.raises(ValueError, match="no run is done"):
    evidence.collect(tmp_path)


def test_the_readme_holds_the_tables_of_the_kept_results():
  results = online_evidence.RESULTS
  readme = results.with_name("README.md").read_text("utf-8")
  made = evidence.text(workdir.read_json(results))
  assert readme_block.block(readme, online_evidence.NAME) == made
  assert results.with_name(online_evidence.FIGURE).exists()
