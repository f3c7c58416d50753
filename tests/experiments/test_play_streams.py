"""Many streams as one program, against regrets that are known."""

import jax
import numpy as np
import pytest

from configs.regret import many_experts as config_file
from experiments import play_streams
from tanbr_jax import bandits
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.report import workdir as reporting

E = V = 3


class Settings:
  num_rounds, seeds = 6, (3, 5)

  def __init__(self, loop):
    self.loop = loop


@pytest.mark.parametrize("loop", ["vmap", "map"])
def test_a_constant_gap_adds_up(loop):
  """Under fixed mixes the plain average loses the same in every slot."""
  environments = [
    synthetic.synthetic(
      family,
      num_experts=E,
      num_tasks=V,
      task_mix=mixes.fixed(np.float32([0.5, 0.3, 0.2])),
    )
    for family in ("quadratic", "saturating")
  ]
  bandit = bandits.uniform(num_experts=E, num_tasks=V)
  found = play_streams.play(bandit, environments, Settings(loop))
  centre = np.full(E, 1 / E, np.float32)
  for environment, (mean, finals) in zip(environments, found, strict=True):
    gaps = []
    for seed in Settings.seeds:
      first, _, _ = jax.random.split(jax.random.key(seed), 3)
      state = environment.init(first)
      outcome = environment.step(jax.random.key(0), state, centre)[1]
      gaps.append(float(outcome.optimal_reward - outcome.expected_reward))
    np.testing.assert_allclose(finals, 6 * np.array(gaps), rtol=1e-4)
    np.testing.assert_allclose(mean, np.arange(1, 7) * np.mean(gaps), rtol=1e-4)


def test_the_worst_ratio_is_that_of_the_mean_regrets():
  """Twice the baseline's regret until slot 30, level with it at slot 60."""
  base = np.arange(1, 61) / 4
  mean = np.minimum(np.arange(1, 61) / 2, 15)
  found = play_streams.figures(mean, np.array([10.0, 14.0, 21.0]), base)
  assert found == {
    "regret": 15.0,
    "median": 14.0,
    "largest": 21.0,
    "worst": 2.0,
    "worst_slot": play_streams.FIRST_SLOT,
  }


def test_a_run_keeps_numbers_and_goes_on(tmp_path, capsys):
  config = config_file.get_config()
  config.num_experts = config.num_tasks = 3
  config.num_rounds, config.num_seeds = 25, 2
  config.families, config.mixes = "quadratic", "drift"
  config.bandits = "random"
  play_streams.run(config, workdir=tmp_path / "run")
  result = reporting.read_json(tmp_path / "run" / play_streams.FILE)
  assert set(result["streams"]["quadratic/drift"]) == {"uniform", "random"}
  assert (result["num_experts"], result["num_seeds"]) == (3, 2)
  capsys.readouterr()
  play_streams.run(config, workdir=tmp_path / "run")
  assert "random" not in capsys.readouterr().out
  assert play_streams.read(tmp_path) == [result]
