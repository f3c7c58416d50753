import shutil

import numpy as np
import pytest

from configs.regret import quick
from experiments import merge_runs
from experiments.regret import comparison
from tanbr_jax.online import trace
from tanbr_jax.report import workdir as reporting


def make_config(**fields):
  config = quick.get_config()
  config.num_rounds, config.chunk_size, config.num_seeds = 12, 6, 2
  config.families, config.mixes = "quadratic", "drift"
  # Two bandits of one structure, hence one compilation.
  config.bandits, config.baseline = "uniform,still", "uniform"
  config.methods.still = {"bandit": "fixed", "weights": [1.0] + [0.0] * 7}
  config.figures = "curves,ablation"
  config.update(fields)
  return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The same run whole and in two parts."""
  folder = tmp_path_factory.mktemp("merge")
  whole = make_config(mixes="drift,fixed")
  comparison.run(whole, workdir=folder / "whole", progress=False)
  for part, fields in (
    ("parts/1", {"mixes": "fixed"}),
    ("parts/2", {"mixes": "drift"}),
  ):
    config = make_config(**fields)
    comparison.run(config, workdir=folder / part, progress=False)
  return folder


def test_parts_make_the_whole(folder):
  runs = merge_runs.find(str(folder / "parts" / "*"))
  merge_runs.merge(runs, folder / "merged")
  merged = trace.load(folder / "merged" / "trace.npz")
  whole = trace.load(folder / "whole" / "trace.npz")
  assert sorted(merged) == sorted(whole)
  for name, one in whole.items():
    np.testing.assert_array_equal(
      merged[name].expected_reward, one.expected_reward
    )
  summaries = [
    reporting.read_json(folder / run / "summary.json")
    for run in ("merged", "whole")
  ]
  # Rates are of the clock; all else is equal, ratios over all streams too.
  for key, value in summaries[1].items():
    if "per_second" not in key:
      assert summaries[0][key] == pytest.approx(value, nan_ok=True), key
  assert "all/still/ratio" in summaries[0]
  assert (folder / "merged" / "curves.png").exists()
  assert (folder / "merged" / "report.html").exists()


def test_methods_of_one_stream_are_joined_in_the_order_of_the_config(folder):
  names = {f"quadratic/{mix}/{m}" for mix in "ab" for m in ("still", "uniform")}
  config = {
    "families": "quadratic",
    "mixes": "b,a",
    "bandits": "uniform,still",
    "settings": {},
  }
  ordered = list(merge_runs._in_order(dict.fromkeys(sorted(names)), config))
  assert ordered == [
    "quadratic/b/uniform",
    "quadratic/b/still",
    "quadratic/a/uniform",
    "quadratic/a/still",
  ]


def test_runs_that_do_not_belong_together(folder, tmp_path):
  one = folder / "parts" / "1"
  with pytest.raises(ValueError, match=r"quadratic/fixed/\w+ was played by"):
    merge_runs.merge([one, one], tmp_path)
  other = tmp_path / "other"
  shutil.copytree(folder / "parts" / "2", other)
  config = reporting.read_json(other / "config.json")
  config["config"]["noise"] = 0.1
  reporting.atomic.write_json(other / "config.json", config)
  with pytest.raises(ValueError, match=r"differ: noise=0.05 in .*, 0.1 in"):
    merge_runs.merge([one, other], tmp_path)
  (other / "trace.npz").unlink()
  with pytest.raises(ValueError, match="no trace.npz: not a finished run"):
    merge_runs.merge([one, other], tmp_path)
  with pytest.raises(ValueError, match="no run matches '.*nothing'"):
    merge_runs.find(str(tmp_path / "nothing"))
