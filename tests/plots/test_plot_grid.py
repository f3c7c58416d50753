import numpy as np
import pytest
import toy

from tanbr_jax.plots import grid


def trace(gap):
  optimal = np.ones((5, 40))
  return toy.make_trace(optimal - gap, optimal - gap, optimal)


@pytest.fixture(scope="module")
def groups():
  streams = ("quadratic/drift", "quadratic/fixed", "network/fixed")
  return {
    stream: {"a": trace(0.25 * (i + 1)), "b": trace(0.5)}
    for i, stream in enumerate(streams)
  }


def test_a_row_a_family_and_a_column_a_mix(groups):
  figure = grid.cumulative_regret(groups)
  titles = [axes.get_title(loc="left") for axes in figure.axes]
  # network/drift was not run: its place stays empty.
  expected = ["quadratic, drift", "quadratic, fixed", "", "network, fixed"]
  assert titles == expected
  ends = [axes.lines[0].get_ydata()[-1] for axes in figure.axes if axes.axison]
  np.testing.assert_allclose(ends, [10, 20, 30], rtol=1e-6)
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_one_mix_makes_one_row(groups):
  chosen = {name: group for name, group in groups.items() if "fixed" in name}
  figure = grid.regret_growth(chosen)
  places = [axes.get_subplotspec().rowspan.start for axes in figure.axes]
  assert places == [0, 0]
  titles = [axes.get_title(loc="left") for axes in figure.axes]
  # The mix is the same in both.
  assert titles == ["quadratic", "network"]
