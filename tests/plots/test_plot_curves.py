import dataclasses

import numpy as np
import pytest
import toy

from tanbr_jax.online import estimates, regret
from tanbr_jax.plots import curves, parts

ROUNDS = 50


@pytest.fixture(scope="module")
def traces():
  rng = np.random.default_rng(0)
  optimal = np.ones((5, ROUNDS))
  made = {}
  for name in ("tanbr", "uniform"):
    played = optimal - rng.uniform(0.1, 0.3, optimal.shape)
    trace = toy.make_trace(played, played, optimal)
    shares = rng.dirichlet(np.ones(12), (5, ROUNDS))
    made[name] = dataclasses.replace(
      trace, merge_weights=shares, task_mix=shares[..., :2] * 0 + 0.5
    )
  tree = {"num_leaves": np.tile(np.arange(ROUNDS), (5, 1))}
  tree |= {"depth": tree["num_leaves"] // 2}
  made["tanbr"] = dataclasses.replace(made["tanbr"], aux=tree)
  return made


def lines(axes):
  return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_cumulative_regret_draws_means_and_intervals(traces):
  figure = curves.cumulative_regret(traces)
  (axes,) = figure.axes
  for name, trace in traces.items():
    cumulative = np.cumsum(1 - trace.expected_reward.astype(float), axis=1)
    rounds, means = lines(axes)[name].T
    np.testing.assert_array_equal(rounds, np.arange(1, ROUNDS + 1))
    np.testing.assert_allclose(means, cumulative.mean(axis=0), rtol=1e-6)
  band = axes.collections[0].get_datalim(axes.transData)
  ends = estimates.mean(regret.expected(traces["tanbr"])[:, -1])
  assert band.y1 == pytest.approx(ends.high)
  assert axes.get_title(loc="left") == "mean of 5 seeds, 95 % interval"


def test_few_seeds_have_their_range_as_band(traces):
  whole = traces["tanbr"]
  few = toy.make_trace(
    whole.expected_reward[:2], whole.expected_reward[:2], np.ones((2, ROUNDS))
  )
  (axes,) = curves.cumulative_regret({"few": few}).axes
  band = axes.collections[0].get_datalim(axes.transData)
  assert band.y1 == pytest.approx(regret.expected(few)[:, -1].max())
  assert "from least to most" in axes.get_title(loc="left")


def test_growth_divides_by_the_root(traces):
  (axes,) = curves.regret_growth(traces).axes
  rounds, scaled = lines(axes)["uniform"].T
  mean = regret.expected(traces["uniform"]).mean(axis=0)
  np.testing.assert_allclose(
    scaled, mean[rounds.astype(int) - 1] / np.sqrt(rounds)
  )
  rounds, shape = lines(axes)[r"shape of $\sqrt{t}\,\log t$"].T
  ratio = shape / np.log(rounds)
  np.testing.assert_allclose(ratio, ratio[0])


def test_growth_of_an_oracle_alone_is_empty(traces):
  oracle = regret.against(traces["tanbr"], traces["tanbr"])
  (axes,) = curves.regret_growth({"oracle": oracle}).axes
  assert not axes.lines and axes.get_legend() is None


def test_smoothing_is_a_trailing_mean(traces):
  figure = curves.reward_and_mix(traces, seed_index=1, window=5)
  upper, lower = figure.axes
  rounds, smooth = lines(upper)["tanbr"].T
  reward = traces["tanbr"].expected_reward[1].astype(float)
  expected = [reward[t - 5 : t].mean() for t in range(5, ROUNDS + 1)]
  np.testing.assert_array_equal(rounds, np.arange(5, ROUNDS + 1))
  np.testing.assert_allclose(smooth, expected, rtol=1e-6)
  assert [a.get_label() for a in lower.collections] == ["task 0", "task 1"]
  assert "seed 1" in lower.get_xlabel()


def test_many_experts_are_summed(traces):
  upper = curves.merge_weights(traces["tanbr"]).axes[0]
  labels = [area.get_label() for area in upper.collections]
  mean = traces["tanbr"].merge_weights[0].mean(axis=0)
  largest = sorted(np.argsort(-mean)[:7])
  assert labels == [f"expert {i}" for i in largest] + ["others"]
  top = upper.collections[-1].get_paths()[0].get_extents().y1
  assert top == pytest.approx(1.0)


def test_only_methods_with_a_tree_are_drawn(traces):
  upper, lower = curves.tree_growth(traces).axes
  np.testing.assert_array_equal(lines(upper)["tanbr"][:, 1], range(ROUNDS))
  assert list(lines(upper)) == ["tanbr"]
  assert curves.tree_growth({"uniform": traces["uniform"]}) is None


def test_save_writes_a_readable_size(traces, tmp_path):
  parts.save(curves.cumulative_regret(traces), tmp_path / "x.png")
  header = (tmp_path / "x.png").read_bytes()[:24]
  # PNG: width and height are big-endian words at byte 16; 6.5 in at 200 dpi.
  assert int.from_bytes(header[16:20], "big") == 1300
