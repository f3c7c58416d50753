import numpy as np
import pytest

from configs.regret import latency as latency_config
from experiments import decision_latency
from experiments.common import records
from experiments.common.streams import BanditSettings
from tanbr_jax.report import workdir as reporting


def make_config():
  config = latency_config.get_config()
  config.num_experts, config.experts_swept = 3, (3,)
  config.default_size, config.sizes_swept = 2, (2, 5)
  config.sizes = {"random": "", "neural_ucb": "num_candidates"}
  config.repeats = 2
  return config


@pytest.mark.parametrize("method", ["tanbr", "tanbr_paper"])
def test_a_tree_of_exactly_as_many_leaves(method):
  settings = BanditSettings(num_experts=3, num_tasks=2)
  tree = decision_latency.full_tree(settings, method, 9)
  assert int(np.sum(tree.is_leaf)) == 9
  # No room to spare, and no box that was dropped is a leaf.
  assert int(tree.num_nodes) == tree.parents.shape[0]
  depths = np.asarray(tree.depths)[np.asarray(tree.is_leaf)]
  assert depths.max() - depths.min() <= 2


def test_one_number_varies_at_a_time():
  config = make_config()
  config.experts_swept = (3, 4)
  assert decision_latency.points(config) == [(3, 2), (4, 2), (3, 5)]


def test_a_run_from_its_files(tmp_path, capsys):
  decision_latency.run(make_config(), workdir=tmp_path)
  rows = reporting.read_json(tmp_path / "latency.json")["rows"]
  found = [(row["method"], row["num_experts"], row["size"]) for row in rows]
  assert sorted(found, key=str) == sorted(
    [
      ("random", 3, None),
      ("neural_ucb", 3, 2),
      ("neural_ucb", 3, 5),
    ],
    key=str,
  )
  assert all(row["low"] <= row["median"] <= row["high"] for row in rows)
  assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows) + 1
  (tmp_path / "latency.png").unlink()
  decision_latency.draw(tmp_path)
  assert (tmp_path / "latency.png").exists()


def test_bad_sizes():
  config = make_config()
  config.sizes = {"neural_ucb": "candidates"}
  with pytest.raises(ValueError, match="got 'candidates' of 'neural_ucb'"):
    records.read(decision_latency.DecisionSettings, config)
  config.sizes = {"neural_ucbb": ""}
  with pytest.raises(ValueError, match="did you mean 'neural_ucb'"):
    records.read(decision_latency.DecisionSettings, config)
