import numpy as np
import pytest

from tanbr_jax.online.estimates import Estimate
from tanbr_jax.plots import sweeps

HALF = Estimate(0.5, 0.4, 0.7)
ALONE = Estimate(2.0, np.nan, np.nan)  # one seed has no interval


def test_bars_have_a_row_a_variant_and_pooled_streams_last():
  figure = sweeps.ablation_bars(
    {
      "no tree": {"all": HALF, "quadratic/drift": HALF},
      "no ascent": {"quadratic/drift": ALONE},
    },
    reference="whole",
  )
  (axes,) = figure.axes
  names = [label.get_text() for label in axes.get_yticklabels()]
  assert names == ["no tree", "no ascent"]
  stream, pooled = axes.containers
  assert stream.get_label() == "quadratic, drift"
  assert pooled.get_label() == "all streams"
  np.testing.assert_array_equal(stream.lines[0].get_xdata(), [0.5, 2.0])
  np.testing.assert_array_equal(pooled.lines[0].get_xdata(), [0.5])
  (ends,) = pooled.lines[2][0].get_segments()
  np.testing.assert_allclose(ends[:, 0], [0.4, 0.7])
  # No interval: a bar of length 0.
  assert np.ptp(stream.lines[2][0].get_segments()[1][:, 0]) == 0
  assert "ratio to whole" in axes.get_xlabel()


def test_a_sweep_is_sorted_and_wide_ranges_are_logarithmic():
  series = {"quadratic/drift": {1.0: ALONE, 0.1: HALF}, "all": {0.1: HALF}}
  figure = sweeps.sweep(
    series, x_label="gamma", y_label="ratio", title="t", reference=1.0
  )
  (axes,) = figure.axes
  np.testing.assert_array_equal(
    axes.containers[0].lines[0].get_xydata(), [[0.1, 0.5], [1.0, 2.0]]
  )
  assert axes.get_xscale() == "log" and axes.get_yscale() == "log"
  near = {"all": {0.5: HALF, 0.9: HALF}}
  figure = sweeps.sweep(near, x_label="rho", y_label="ratio", title="t")
  assert figure.axes[0].get_xscale() == "linear"
  zero = {"all": {0.0: HALF, 4.0: HALF}}
  figure = sweeps.sweep(zero, x_label="gamma", y_label="r", title="t")
  assert figure.axes[0].get_xscale() == "linear"


@pytest.mark.parametrize("target, num_labels", [(None, 1), (0.4, 2)])
def test_latency_has_a_panel_a_number(target, num_labels):
  panels = {"experts": {"tanbr": {4: HALF}}, "leaves": {"tanbr": {20: HALF}}}
  figure = sweeps.latency(panels, target=target)
  assert [a.get_xlabel() for a in figure.axes] == ["experts", "leaves"]
  assert len(figure.legends[0].get_texts()) == num_labels
