import numpy as np
import pytest

from tanbr_jax.plots import labels as plot_labels
from tanbr_jax.plots import parts


def draw(ends):
  _, (axes,) = parts.make_figure(1, height=2.0)
  for i, end in enumerate(ends):
    axes.plot([1, 2], [1, end], label=f"method {i}")
  return axes


@pytest.mark.parametrize(
  "num_lines, first", [(8, "method 0"), (9, "method 8")], ids=["few", "many"]
)
def test_many_lines_are_listed_as_they_end(num_lines, first):
  axes = draw(np.arange(1, num_lines + 1))
  plot_labels.add_legend(axes, by_end=True)
  labels = [text.get_text() for text in axes.get_legend().get_texts()]
  assert len(labels) == num_lines and labels[0] == first


def test_no_lines_no_legend():
  axes = draw([])
  plot_labels.add_legend(axes)
  assert axes.get_legend() is None


@pytest.mark.parametrize("high, expected", [(4.0, "1.5"), (50.0, "20")])
def test_ticks_of_few_decades_are_plain_numbers(high, expected):
  axes = draw([high])
  axes.set_yscale("log")
  plot_labels.plain_ticks(axes.yaxis)
  axes.figure.canvas.draw()
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert expected in labels and "1" in labels


def test_ticks_of_many_decades_are_left_alone():
  axes = draw([1e5])
  axes.set_yscale("log")
  before = axes.yaxis.get_major_locator()
  plot_labels.plain_ticks(axes.yaxis)
  assert axes.yaxis.get_major_locator() is before


def test_one_legend_for_a_grid():
  figure, grid = parts.make_grid(1, 2, height=2.0, num_labels=3)
  for axes, names in zip(grid[0], (("a", "b"), ("b", "c")), strict=True):
    for name in names:
      axes.plot([0, 1], label=name)
  plot_labels.add_shared_legend(figure)
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
