import dataclasses

import numpy as np
import pytest
import toy

from tanbr_jax.plots import learning

SEEDS, ROUNDS = 5, 100  # hence a window of 2 rounds


@pytest.fixture(scope="module")
def traces():
  rng = np.random.default_rng(0)
  optimal = np.ones((SEEDS, ROUNDS))
  plain = toy.make_trace(optimal * 0, optimal * 0, optimal)
  played = rng.uniform(0.9, 1, optimal.shape)
  learner = toy.make_trace(played, played, optimal)
  aux = {
    "predicted_reward": rng.uniform(0, 1, optimal.shape).astype(np.float32),
    "exploration_bonus": rng.normal(size=optimal.shape).astype(np.float32),
  }
  return {"plain": plain, "learner": dataclasses.replace(learner, aux=aux)}


def line(figure, label):
  (axes,) = figure.axes
  (found,) = [x for x in axes.lines if x.get_label() == label]
  return found


def pairs(values):
  """Means over seeds and two rounds, by a plain loop."""
  return [values[:, t - 1 : t + 1].mean() for t in range(1, ROUNDS)]


def test_model_error_of_the_methods_that_predict(traces):
  figure = learning.model_error(traces)
  one = traces["learner"]
  error = np.abs(one.aux["predicted_reward"] - one.expected_reward)
  drawn = line(figure, "learner")
  np.testing.assert_array_equal(drawn.get_xdata(), range(2, ROUNDS + 1))
  np.testing.assert_allclose(drawn.get_ydata(), pairs(error), rtol=1e-6)
  labels = [x.get_label() for x in figure.axes[0].lines]
  assert labels == ["learner"]
  # Its colour is that of its place among all methods, as in other figures.
  assert drawn.get_color() == "#D55E00"
  assert learning.model_error({"plain": traces["plain"]}) is None


def test_errors_of_zero_are_drawn_on_a_linear_axis(traces):
  learner = traces["learner"]
  right = {"predicted_reward": learner.expected_reward}
  figure = learning.model_error(
    {"learner": dataclasses.replace(learner, aux=right)}
  )
  assert not line(figure, "learner").get_ydata().any()
  assert figure.axes[0].get_yscale() == "linear"
  assert learning.model_error(traces).axes[0].get_yscale() == "log"


def test_bonus_is_a_size(traces):
  drawn = line(learning.exploration_bonus(traces), "learner")
  bonus = np.abs(traces["learner"].aux["exploration_bonus"])
  np.testing.assert_allclose(drawn.get_ydata(), pairs(bonus), rtol=1e-6)


def test_optimal_play_counts_against_the_range_of_all(traces):
  figure = learning.optimal_play(traces, tolerance=0.05)
  # `plain` earns 0 where 1 can be had: the range is 1.
  hits = 1 - traces["learner"].expected_reward.astype(float) <= 0.05
  drawn = line(figure, "learner")
  np.testing.assert_allclose(drawn.get_ydata(), pairs(hits), rtol=1e-6)
  assert not line(figure, "plain").get_ydata().any()
  assert "5%" in figure.axes[0].get_ylabel()
