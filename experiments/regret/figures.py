"""The figures of a regret run, which a field of its config chooses.

streams   every stream's own: regret, growth, reward, learning, trees
curves    regret of all streams in one grid
growth    regret over the root of t of all streams in one grid
ablation  ratio to the baseline: bars, or a line over the number `varied`
settings  regret over the number `varied` of the settings, a line a method
"""

import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.common import drawing
from tanbr_jax.online.estimates import Estimate
from tanbr_jax.plots import grid as plot_grid
from tanbr_jax.plots import parts, sweeps
from tanbr_jax.plots.text import plain
from tanbr_jax.report import workdir as reporting
from tanbr_jax.report.html import ReportFigure

_INTERVAL = "95 % Student interval over seeds"


def draw(workdir: Path, config: Mapping[str, Any]) -> list[ReportFigure]:
  """Writes the figures that the config names, from the folder's files."""
  wanted = [name.strip() for name in config["figures"].split(",")]
  report = []
  for name in wanted:
    with drawing.surviving(name):
      report += FIGURES[name](workdir, config)
  return report


def _streams(workdir: Path, config: Mapping[str, Any]) -> list[ReportFigure]:
  report = []
  for stream, traces in drawing.load_groups(workdir).items():
    report += drawing.draw_stream(
      workdir,
      traces,
      prefix=stream.replace("/", "_") + "_",
      where=stream.replace("/", ", ") + ": ",
      log=config["log_scale"],
    )
  return report


def _curves(workdir: Path, config: Mapping[str, Any]) -> list[ReportFigure]:
  groups = drawing.load_groups(workdir)
  figure = plot_grid.cumulative_regret(groups, log=config["log_scale"])
  parts.save(figure, workdir / "curves.png")
  caption = f"Cumulative expected regret: means, and bands of the {_INTERVAL}."
  return [ReportFigure("curves.png", caption)]


def _growth(workdir: Path, config: Mapping[str, Any]) -> list[ReportFigure]:
  del config
  figure = plot_grid.regret_growth(drawing.load_groups(workdir))
  parts.save(figure, workdir / "growth.png")
  caption = (
    "Mean expected regret over the root of the round; flat is the square root "
    "law, a rise of slope 1/2 is linear regret."
  )
  return [ReportFigure("growth.png", caption)]


def _ablation(workdir: Path, config: Mapping[str, Any]) -> list[ReportFigure]:
  """Ratios to the baseline; a line if every method has a number `varied`."""
  baseline, varied = config["baseline"], config["varied"]
  ratios = ratios_of(reporting.read_json(workdir / reporting.SUMMARY))
  ratios.pop(baseline, None)
  if not ratios:
    return []
  if len(next(iter(ratios.values()))) == 2:  # one stream is all streams
    ratios = {
      method: {s: r for s, r in row.items() if s != sweeps.POOLED}
      for method, row in ratios.items()
    }
  values = {
    method: config["methods"].get(method, {}).get(varied)
    for method in (*ratios, baseline)
  }
  if all(_is_number(value) for value in values.values()):
    figure = _sweep(ratios, values, baseline=baseline, varied=varied)
  else:
    figure = sweeps.ablation_bars(ratios, reference=baseline)
  parts.save(figure, workdir / "ablation.png")
  caption = (
    f"Final expected regret over that of {baseline}, geometric mean over "
    "paired seeds, for each stream and over all (black); bars are 95 % "
    "intervals."
  )
  return [ReportFigure("ablation.png", caption)]


def _sweep(
  ratios: Mapping[str, Mapping[str, Estimate]],
  values: Mapping[str, float],
  *,
  baseline: str,
  varied: str,
) -> Figure:
  """The ratios as a line a stream; the baseline's own is 1."""
  series: dict[str, dict[float, Estimate]] = {}
  for method, row in ratios.items():
    for stream, ratio in row.items():
      points = series.setdefault(stream, {values[baseline]: Estimate(1, 1, 1)})
      points[values[method]] = ratio
  return sweeps.sweep(
    series,
    x_label=plain(varied),
    y_label=(
      f"expected regret, ratio to\n{plain(varied)} = {values[baseline]:g}"
    ),
    title="geometric mean over paired seeds, 95 % interval",
    reference=1.0,
  )


def _settings(workdir: Path, config: Mapping[str, Any]) -> list[ReportFigure]:
  """Ratios to the baseline over the settings, a figure a stream."""
  baseline, varied = config["baseline"], config["varied"]
  found: dict[str, dict[str, dict[float, Estimate]]] = {}
  summary = reporting.read_json(workdir / reporting.SUMMARY)
  for method, row in ratios_of(summary).items():
    for name, ratio in row.items():
      stream, _, setting = name.rpartition("/")
      if setting in config["settings"]:
        value = config["settings"][setting][varied]
        found.setdefault(stream, {}).setdefault(method, {})[value] = ratio
  report = []
  for stream, series in found.items():
    where = stream.replace("/", ", ")
    figure = sweeps.sweep(
      series,
      x_label=plain(varied),
      y_label=f"expected regret, ratio to\n{plain(baseline)} (log scale)",
      title=f"{plain(where)}: geometric mean over paired seeds, 95 % interval",
      reference=1.0,
    )
    file = f"{stream.replace('/', '_')}_settings.png"
    parts.save(figure, workdir / file)
    caption = f"{where}: final expected regret over that of {baseline}."
    report.append(ReportFigure(file, caption))
  return report


def ratios_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Estimate]]:
  """The table method -> stream -> ratio to the baseline, of a run's summary."""
  ratios: dict[str, dict[str, Estimate]] = {}
  for key in summary:
    stream, method, quantity = _split(key)
    if quantity == "ratio" and summary[key] is not None:
      ratios.setdefault(method, {})[stream] = _estimate(summary, key)
  return ratios


def _split(key: str) -> tuple[str, str, str]:
  """`<stream>/<method>/<quantity>`, where a stream may contain slashes."""
  stream, method, quantity = ["", "", *key.rsplit("/", 2)][-3:]
  return stream, method, quantity


def _estimate(summary: Mapping[str, Any], key: str) -> Estimate:
  ends = (summary.get(f"{key}_{end}") for end in ("low", "high"))
  return Estimate(
    summary[key], *(float("nan") if e is None else e for e in ends)
  )


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


FIGURES: dict[str, Callable[..., list[ReportFigure]]] = {
  "ablation": _ablation,
  "curves": _curves,
  "growth": _growth,
  "settings": _settings,
  "streams": _streams,
}
