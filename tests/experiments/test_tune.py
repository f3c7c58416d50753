import numpy as np
import pytest

from configs.regret import tune as tune_config
from experiments import tune
from experiments.common import records, streams
from tanbr_jax.online import regret, rollout
from tanbr_jax.report import workdir as reporting

pytestmark = pytest.mark.slow


def make_config():
  config = tune_config.get_config()
  config.num_rounds, config.num_seeds, config.loop = 5, 2, "map"
  config.families, config.mixes = "quadratic", "drift"
  config.learners = "epsilon_greedy"
  config.grids = {"epsilon_greedy": {"epsilon": (0.1, 0.9)}}
  return config


def test_scores_are_those_of_runs_of_each_point(tmp_path, capsys):
  config = make_config()
  tune.run(config, workdir=tmp_path)
  rows = reporting.read_json(tmp_path / "tune.json")["epsilon_greedy"]
  synthetic = records.read(streams.SyntheticSettings, config)
  for row, epsilon in zip(rows, (0.1, 0.9), strict=True):
    played = rollout.run(
      streams.make_bandit(synthetic, "epsilon_greedy", epsilon=epsilon),
      streams.make_environment(synthetic, "quadratic", "drift"),
      num_rounds=5,
      seeds=(1000, 1001),
      loop="map",
      progress=False,
    )
    logs = np.log(regret.expected(played)[:, -1])
    assert row["epsilon"] == epsilon
    assert row["quadratic/drift"] == pytest.approx(
      np.exp(logs.mean()), rel=1e-5
    )
    assert row["score"] == pytest.approx(logs.mean(), abs=1e-5)
  # What the folder holds is not played again.
  printed = capsys.readouterr().out
  tune.run(config, workdir=tmp_path)
  assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("grids", {"a": {"x": (1.0,)}, "b": {"x": (1.0, 2.0)}}, "same number of"),
    ("learners", "epsilon_gredy", "did you mean 'epsilon_greedy'"),
    ("families", "cubic", "unknown family 'cubic'"),
    ("loop", "scan", "loop must be one of .*, got loop='scan'"),
  ],
)
def test_bad_values(field, value, message, tmp_path):
  config = make_config()
  config[field] = value
  with pytest.raises(ValueError, match=message):
    tune.run(config, workdir=tmp_path / "run")
  assert not (tmp_path / "run").exists()
