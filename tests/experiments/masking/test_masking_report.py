import json

import numpy as np
import pytest

from configs.masking import gpu, rates
from experiments.masking import choice, readme_tables, report, timing


def row(active, accuracy):
  return {"active": active, "accuracy": accuracy}


def test_a_difference_is_taken_at_equal_active_experts():
  rows = {
    "0/control": row(4.0, 0.70),
    "0/smaller_k__1": row(1.0, 0.50),
    "0/smaller_k__2": row(2.0, 0.60),
    "0/beam__50": row(1.5, 0.60),
    "1/control": row(4.0, 0.70),
    "1/smaller_k__1": row(1.0, 0.50),
    "1/smaller_k__2": row(2.0, 0.60),
    "1/beam__50": row(3.0, 0.68),
    "0/beam__15": row(0.6, 0.45),
  }
  # At 1.5 the curve is at .55, at 3 between .6 and .7: .65.
  found = report.difference_at_equal_active(rows, "beam__50", "smaller_k")
  assert found.points[0] == pytest.approx((0.05 + 0.03) / 2)
  assert found.is_reached
  # Below its smallest the curve's smallest stands, with more experts.
  found = report.difference_at_equal_active(rows, "beam__15", "smaller_k")
  assert found.points[0] == pytest.approx(0.45 - 0.50)
  assert not found.is_reached
  assert "| -5.00 * |" in report.matched_table(rows)
  assert report.difference_at_equal_active(rows, "beam__50", "xmoe") is None


def test_a_column_that_lacks_a_figure_stays_in_place():
  about = {"by_rank": [1.0], "by_layer": [2.0], "imbalance": 3.0}
  rows = {"0/control": about, "0/beam__50": {**about, "by_class": {"a": 4.0}}}
  made = report.anatomy_table(rows)
  assert "| a | - | 4.00 |" in made
  assert "| rank 1 | 1.00 | 1.00 |" in made


def test_times_that_one_run_alone_has_leave_a_gap():
  took = {"full/microseconds": 10.0, "full/pairs": 4.0, "full/distinct": 2.0}
  summary = {"device": "a CPU"}
  summary |= {
    f"m/{n}/{key}": value for n in (1, 8) for key, value in took.items()
  }
  summary[f"m/8/{timing.READ}/microseconds"] = 5.0
  made = readme_tables.times_text(summary)
  assert f"| {timing.READ} | - | 5 us (0.50) |" in made


def test_times_of_two_devices_are_not_mixed(tmp_path):
  for name in "ab":
    (tmp_path / name).mkdir()
    content = json.dumps({"device": name, "m/1/full/microseconds": 1.0})
    (tmp_path / name / "summary.json").write_text(content)
  folders = f"{tmp_path / 'a'},{tmp_path / 'b'}"
  with pytest.raises(ValueError, match="one device, got 'a' and, in .*b, 'b'"):
    readme_tables.collect_times(folders)


def test_bytes_have_classes():
  active, count = np.zeros(256), np.zeros(256)
  for byte, value in ((b"a", 2.0), (b"z", 1.0), (b"7", 3.0), (b"\n", 0.5)):
    active[ord(byte)], count[ord(byte)] = 2 * value, 2
  found = report.by_class(active, count)
  assert found["lower-case letter"] == pytest.approx(1.5)
  assert found["digit"] == pytest.approx(3.0)
  assert found["line end"] == pytest.approx(0.5)
  assert found["space"] == 0.0


def test_rates_are_chosen_at_equal_active_experts():
  rows = {
    # The second label is better for the control, the first for masks.
    "3/control@1": row(4.0, 0.70),
    "3/control@2": row(4.0, 0.72),
    "3/beam_budget__50@1": row(2.0, 0.70),
    "3/beam_budget__15@1": row(1.0, 0.64),
    "3/beam_budget__50@2": row(2.0, 0.71),
    "3/beam_budget__15@2": row(1.0, 0.60),
    # The line: .64 at one expert, .70 at two, .72 at four. At three .71.
    "3/zeda__1@1": row(3.0, 0.715),
    "3/zeda__1@2": row(2.0, 0.71),
  }
  scores = choice.score(rows)
  assert choice.choose(scores) == {
    "control": "2",
    "beam_budget": "1",
    "zeda": "2",
  }
  assert scores["zeda"]["1"].above == pytest.approx(0.005)
  assert scores["zeda"]["2"].above == pytest.approx(0.01)
  assert scores["beam_budget"]["2"].accuracy == pytest.approx(0.655)
  assert "| zeda | 0.7150 (3.00) | **0.7100 (2.00)** |" in choice.table(scores)
  with pytest.raises(ValueError, match="needs rows of control"):
    choice.score({"3/beam_budget__50@1": row(2.0, 0.7)})


def test_what_is_chosen_becomes_flags_of_every_setting():
  found = choice.as_flags({"beam_budget": "2"}, ["beam_budget", "beam_beta"])
  assert len(found) == 2 * (2 + 3)
  rate = 2 * gpu.ADDED_LEARNING_RATE
  assert f"--config.tuned.beam_beta__1.added_learning_rate={rate}" in found
  assert not any("beam_strict" in flag for flag in found)
  with pytest.raises(ValueError, match="needs rows of zeda, got those of"):
    choice.as_flags({"beam_budget": "2"}, ["zeda"])


def test_families_can_be_run_apart():
  whole = rates.get_config().tuned
  apart = [rates.get_config(f"{name}").tuned for name in gpu.SCALES]
  assert sum(len(part) for part in apart) == len(whole)
  part = gpu.get_config("zeda")
  assert {*part.tuned} == {"zeda__0_1", "zeda__3"} and not part.free
