import hostile_names
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tanbr_jax.plots import parts
from tanbr_jax.plots.text import plain


def pixels(text, **options):
  figure = Figure(figsize=(6, 0.5))
  canvas = FigureCanvasAgg(figure)
  figure.text(0.0, 0.3, text, **options)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize("name", hostile_names.NAMES)
def test_a_name_is_drawn_letter_by_letter(name):
  # What matplotlib draws where it reads no formulas is the letters alone.
  expected = {
    "_hidden": " _hidden",
    "line\nend\ttab\x1b[31m\x7f": r"line\nend\ttab\x1b[31m\x7f",
    "\U0001f600 \u4efb\u52a1": "\U0001f600 \\u4efb\\u52a1",
    "\u202eright to left\u200f": r"\u202eright to left\u200f",
    "n" * 200: f"{'n' * 15}\u2026{'n' * 16}",
    "no UTF-8 \udcff\udcfe": r"no UTF-8 \udcff\udcfe",
  }.get(name, name)
  np.testing.assert_array_equal(
    pixels(plain(name)), pixels(expected, parse_math=False)
  )


def test_every_name_stands_in_a_legend():
  _, (axes,) = parts.make_figure(1, height=3.0)
  shares = np.full((5, len(hostile_names.NAMES)), 1 / len(hostile_names.NAMES))
  parts.stack(axes, shares, hostile_names.NAMES)
  _, labels = axes.get_legend_handles_labels()
  assert labels == [plain(name) for name in hostile_names.NAMES]
