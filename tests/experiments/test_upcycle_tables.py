"""The tables of experiments/upcycle/README.md are those of what is kept."""

import json
import types

import numpy as np
import pytest
from toy import make_trace

from experiments.common import readme_block
from experiments.upcycle import figures, served, table

README = table.RESULTS.with_name("README.md").read_text("utf-8")


def test_the_readme_holds_the_kept_scores():
  kept = json.loads(table.RESULTS.read_text())
  assert readme_block.block(README, "smollm2") == table.text(kept)


def test_the_readme_holds_the_kept_streams():
  kept = json.loads(served.RESULTS.read_text())
  assert readme_block.block(README, "served") == served.text(kept)


def test_a_stream_is_told_by_hand():
  one = {
    "mean_reward": -2.0,
    "last_quarter_reward": -1.5,
    "expected_regret": [10.0, 5.0, 15.0],
    "gap_recovered": [0.5, 0.25, 0.75],
  }
  about = {"jax": "1.2", "device": "a GPU", "num_rounds": 100, "num_seeds": 2}
  about |= {"requests": 4, "context": 8, "mix": "drift"}
  made = served.text({"log_likelihood": {**about, "methods": {"tanbr": one}}})
  assert "100 slots of 4 requests of 8 tokens" in made
  row = "| tanbr | rewards | 2.000 | 1.500 | 0.50 [0.25, 0.75] | "
  assert row + "0.100 [0.050, 0.150] |\n" in made + "\n"
  # Of accuracy, with no figure of it for this method: two more columns.
  other = {**about, "methods": {}}
  made = served.text(
    {
      "log_likelihood": {**about, "methods": {"tanbr": one}},
      "accuracy": other,
    }
  )
  assert row + "0.100 [0.050, 0.150] | - | - |" in made


def test_what_is_not_known_is_left_out():
  one = {
    "mean_reward": -2.0,
    "last_quarter_reward": -1.5,
    "expected_regret": [10.0, None, None],
    "gap_recovered": [None, None, None],
  }
  about = {"jax": "1.2", "device": "a GPU", "num_rounds": 100, "num_seeds": 1}
  about |= {"requests": 4, "context": 8, "mix": "drift"}
  made = served.text({"log_likelihood": {**about, "methods": {"tanbr": one}}})
  assert "| tanbr | rewards | 2.000 | 1.500 | - | 0.100 |" in made


def test_losses_are_drawn_by_task():
  made = figures.losses(
    {"a": [[1.0, 2.0], [3.0, 4.0]], "b": [[5.0, 6.0]]}, task_names=["x", "y"]
  )
  (axes,) = made.axes
  first, second = axes.containers
  # Means over seeds, and from the least to the largest of them.
  np.testing.assert_allclose(first.lines[0].get_ydata(), [2, 3])
  ends = [bar[:, 1].tolist() for bar in first.lines[2][0].get_segments()]
  assert ends == [[1, 3], [2, 4]]
  np.testing.assert_allclose(second.lines[0].get_ydata(), [5, 6])
  assert [c.get_label() for c in axes.containers] == [
    "a, 2 seeds",
    "b, 1 seed",
  ]
  assert [t.get_text() for t in axes.get_xticklabels()] == ["x", "y"]


def test_losses_are_drawn_less_the_controls_of_the_same_seed(monkeypatch):
  drawn = []
  monkeypatch.setattr(
    table.parts, "save", lambda figure, _: drawn.append(figure)
  )
  losses = {
    "dense/itself": {"1": [1.0, 5.0], "0": [2.0, 3.0]},
    # Of seed 2 there is no control.
    "domains/own": {"0": [2.5, 2.0], "1": [2.0, 5.0], "2": [9.0, 9.0]},
  }
  table.draw({"losses": losses, "task_names": ["x", "y"]}, None)
  (bars,) = drawn[0].axes[0].containers
  assert bars.get_label() == "own x, 2 seeds"
  # Differences .5, -1 and 1, 0.
  np.testing.assert_allclose(bars.lines[0].get_ydata(), [0.75, -0.5])


def test_texts_are_those_of_the_first_run_that_has_any(tmp_path):
  about = {"versions": {}, "device": "", "corpus_fingerprint": ""}
  scores = {name: [0.0, 0.0] for name in ("loss", "accuracy")}
  for run, texts in (("a", {"itself": {"c": "x"}}), ("b", {})):
    (tmp_path / run).mkdir()
    record = {"forms": {"itself": scores}, "continued": texts}
    for name, content in (("config", about), ("base", record)):
      (tmp_path / run / f"{name}.json").write_text(json.dumps(content))
  found = table.collect([tmp_path / "a", tmp_path / "b"])
  assert found["continued"] == {"base": {"itself": {"c": "x"}}}


def test_runs_of_different_text_are_not_mixed(tmp_path):
  for run in "ab":
    about = {"versions": {}, "device": "", "corpus_fingerprint": run}
    (tmp_path / run).mkdir()
    (tmp_path / run / "config.json").write_text(json.dumps(about))
  with pytest.raises(ValueError, match="no scores in .*a"):
    table.collect([tmp_path / "a"])
  with pytest.raises(ValueError, match="one text, got a and, in .*b, b"):
    table.collect([tmp_path / "a", tmp_path / "b"])


def test_streams_beside_each_other_are_alike(tmp_path, monkeypatch):
  given = types.SimpleNamespace(accuracy=str(tmp_path / "accuracy"))
  monkeypatch.setattr(served.flags, "FLAGS", given)
  config = {"num_seeds": 2, "requests": 4, "mix": "drift"}
  config["model"] = {"context": 8}
  about = {"versions": {"jax": "1.2"}, "device": "a GPU"}

  def write(reward, num_rounds):
    one = {"reward": reward, "num_rounds": num_rounds}
    (tmp_path / reward).mkdir(exist_ok=True)
    content = json.dumps(about | {"config": config | one})
    (tmp_path / reward / "config.json").write_text(content)
    summary = {"uniform/mean_reward": 1.0, "uniform/last_quarter_reward": 1.0}
    (tmp_path / reward / "summary.json").write_text(json.dumps(summary))

  write("log_likelihood", 9)
  write("accuracy", 9)
  found = served.collect(tmp_path / "log_likelihood")
  assert found["accuracy"]["num_rounds"] == 9
  assert list(found["accuracy"]["methods"]) == ["uniform"]
  write("accuracy", 5)
  with pytest.raises(ValueError, match="have one num_rounds, got 9 and 5"):
    served.collect(tmp_path / "log_likelihood")
  write("accuracy", 9)
  (tmp_path / "accuracy" / "summary.json").write_text("{}")
  with pytest.raises(ValueError, match="accuracy has none of .'oracle'"):
    served.collect(tmp_path / "log_likelihood")


def test_what_a_stopped_run_lacks_is_left_out(monkeypatch):
  kept = {"versions": {"jax": "1.2"}, "device": "", "corpus_fingerprint": "ab"}
  kept |= {"figures": {}, "seconds": {}, "continued": {}}
  assert "Training" not in table.text(kept)
  monkeypatch.setattr(table.parts, "save", pytest.fail)
  losses = {"dense/itself": {"0": [1.0]}, "domains/own": {"0": [2.0]}}
  table.draw({"losses": losses}, None)


def test_regret_is_drawn_for_each_reward():
  optimal = np.array([[1.0, 1.0], [1.0, 1.0]])
  one = make_trace(optimal - [[0.5, 0.25], [0.0, 0.25]], optimal, optimal)
  made = figures.served(
    {"log_likelihood": {"tanbr": one}, "accuracy": {"uniform": one}},
    methods=list(served.TOLD),
  )
  colours = set()
  for axes, name in zip(made.axes, ("tanbr", "uniform"), strict=True):
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"oracle", name}
    # Regrets of .5, .75 and of 0, .25.
    np.testing.assert_allclose(lines[name].get_ydata(), [0.25, 0.5])
    colours.add(lines[name].get_color())
  assert len(colours) == 2
  assert "nats a token" in made.axes[0].get_ylabel()
