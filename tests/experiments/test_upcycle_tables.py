"""The tables of experiments/upcycle/README.md are those of what is kept."""

import json

from experiments.common import readme_block
from experiments.upcycle import served, table

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
