import sys

import numpy as np
import pytest

from configs.bandit_speed import quick as benchmark_config
from experiments import benchmark_bandits
from experiments.bandit_speed import outside, rows, settings
from tanbr_jax.report import workdir as reporting


def make_config(**fields):
  config = benchmark_config.get_config()
  config.num_experts = config.num_tasks = 2
  config.bandits, config.seed_counts = "ucb1,random", "2"
  config.num_rounds, config.chunk_size = 20, 5
  config.torch = dict(history=4, num_rounds=6, chunk_size=2, max_steps=3)
  config.regret_rounds = 0
  config.update(fields)
  return config


def test_rates_of_chunks():
  # 2 seeds of 10 rounds a chunk: 20 slots in 2, 1, 4 and 5 seconds.
  row = rows.make_row("any", 2, 10, [2.0, 1.0, 4.0, 5.0], 9.0)
  assert row == {
    "method": "any",
    "num_seeds": 2,
    "num_rounds": 40,
    "rate": 7.5,
    "rate_low": 4.0,
    "rate_high": 20.0,
    "last_over_second": 0.2,
    "wall_seconds": 12.0,
    "compile_seconds": 7.0,
  }
  beside = {"rate": 2.5}
  assert rows.compare(row, beside, "x_torch")["x_torch"] == 3.0
  missing = {"method": "outside", "missing": "not installed"}
  assert "x_pyxab" not in rows.compare(row, missing, "x_pyxab")


def test_a_run(tmp_path, capsys):
  benchmark_bandits.run(make_config(), workdir=tmp_path)
  rows = reporting.read_json(tmp_path / "benchmark.json")["rows"]
  assert [(row["method"], row["num_seeds"]) for row in rows] == [
    (method, 2) for method in ("environment alone", "ucb1", "random")
  ]
  for row in rows:
    assert row["num_rounds"] == 20
    assert 0 < row["rate_low"] <= row["rate"] <= row["rate_high"]
    assert row["wall_seconds"] > 0 and "missing" not in row
  lines = capsys.readouterr().out.splitlines()
  # A line as each is measured, then the table with its head.
  assert len(lines) == 3 + 1 + 2 + 3 + 1


def test_a_slow_method_is_stopped_after_three_chunks(tmp_path):
  config = make_config(bandits="random", max_seconds=0.0)
  benchmark_bandits.run(config, workdir=tmp_path)
  rows = reporting.read_json(tmp_path / "benchmark.json")["rows"]
  assert [row["num_rounds"] for row in rows] == [15, 15]


def make_settings(**fields):
  return settings.read(make_config(**fields))


def test_without_pyxab_its_row_says_so(monkeypatch):
  monkeypatch.setitem(sys.modules, "PyXAB", None)
  row = benchmark_bandits.pyxab_row(make_settings(), "hoo", None)
  assert row["method"] == "PyXAB T_HOO" and "rate" not in row
  assert "pip install 'PyXAB" in row["missing"]
  assert "pip install 'PyXAB" in rows.progress(row)


@pytest.mark.slow
def test_ours_run_without_pytorch(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  settings = make_settings(seed_counts="1")
  environment = benchmark_bandits.make_environment(settings)
  rows = benchmark_bandits.beside_torch(settings, environment)
  assert [row["method"] for row in rows] == [
    "PyTorch NeuralUCB",
    "neural_ucb_practical, equal work",
    "neural_ucb, same rounds",
  ]
  assert "pip install torch" in rows[0]["missing"]
  assert all(row["num_rounds"] == 6 for row in rows[1:])
  assert not any("x_torch" in row for row in rows)


def test_an_outside_players_own_time_alone():
  # The clock ticks once a look: two calls of the player a round, each 1 long.
  ticks = iter(range(100))
  seen = []
  player = outside.Player(
    choose=lambda t, mix: t,
    to_weights=lambda choice: np.array([1.0, 0.0]),
    learn=lambda t, mix, weights, reward: seen.append((t, mix, reward)),
  )
  environment = benchmark_bandits.make_environment(make_settings())
  stream = outside.Stream(environment)
  seconds = stream.play(player, 3, clock=lambda: next(ticks))
  assert seconds == 6.0
  stream.play(player, 1)
  assert [t for t, _, _ in seen] == [0, 1, 2, 3]
  for _, mix, reward in seen:
    np.testing.assert_allclose(mix.sum(), 1, atol=1e-5)
    assert reward.shape == (2,) and np.isfinite(reward).all()


def test_pyxab_plays():
  pytest.importorskip("PyXAB")
  settings = make_settings(num_rounds=15, chunk_size=5)
  environment = benchmark_bandits.make_environment(settings)
  for method in ("hoo", "hct"):
    row = benchmark_bandits.pyxab_row(settings, method, environment)
    assert row["num_rounds"] == 15 and row["rate"] > 0


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"bandits": "ucb2"}, "unknown bandit 'ucb2', did you mean 'ucb1'"),
    ({"family": "quadric"}, "unknown family 'quadric'"),
    ({"mix": "drifts"}, "unknown mix 'drifts'"),
    ({"seed_counts": "1,x"}, "seed_counts must be .* got seed_counts='1,x'"),
    ({"seed_counts": "0"}, "seed_counts must be .* got seed_counts='0'"),
    ({"loop": "scan"}, "loop must be one of .*, got 'scan'"),
    ({"chunk_size": 9}, "at least 3 chunks, got num_rounds=20, chunk_size=9"),
    ({"torch.num_rounds": 5}, "torch.num_rounds must be .* num_rounds=5"),
    ({"torch.history": 3}, "torch.history must be whole chunks"),
  ],
)
def test_bad_input_costs_one_line(fields, message, tmp_path):
  config = make_config()
  config.update_from_flattened_dict(fields)
  with pytest.raises(ValueError, match=message) as error:
    benchmark_bandits.run(config, workdir=tmp_path / "run")
  assert "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()
