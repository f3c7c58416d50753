"""Draws the figures and the report of a run's folder from its files alone."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import logging
from matplotlib.figure import Figure

from tanbr_jax.checks.names import printable
from tanbr_jax.online import trace
from tanbr_jax.online.trace import Trace
from tanbr_jax.plots import curves, learning, parts
from tanbr_jax.report import html, tables
from tanbr_jax.report import workdir as reporting
from tanbr_jax.report.html import ReportFigure

Draw = Callable[[], Figure | None]


@contextlib.contextmanager
def surviving(name: str) -> Iterator[None]:
  """Draws inside; what fails there costs a line and not the run.

  A run's numbers are on disk when its figures are drawn, and the figures can be
  drawn again from them.

  Args:
    name: of the figure, for the line.
  """
  try:
    yield
  except Exception as error:
    reason = printable(" ".join(str(error).split()))
    logging.warning(
      "figure %s is not drawn: %s: %s", name, type(error).__name__, reason
    )


def draw_stream(
  workdir: str | os.PathLike[str],
  traces: Mapping[str, Trace],
  *,
  prefix: str = "",
  where: str = "",
  task_names: Sequence[str] | None = None,
  reward_name: str = "expected reward",
  unit: str = "reward",
  shown: str = "tanbr",
  log: bool = False,
) -> list[ReportFigure]:
  """Writes the figures of methods that were served the same stream.

  Args:
    workdir: the run's folder.
    traces: method -> trace.
    prefix: of the files' names.
    where: of the captions, for instance "quadratic, drift: ".
    task_names: V names.
    reward_name: of the reward axis, unit included.
    unit: of a reward.
    shown: the method whose weights are drawn, if it was run.
    log: whether regret is drawn on logarithmic axes.

  Returns:
    What to put into a report.
  """
  # The name, figure and caption of each, in the order of the report.
  drawn: list[tuple[str, Draw, str]] = [
    (
      "regret",
      lambda: curves.cumulative_regret(traces, unit=unit, log=log),
      "cumulative expected regret of each method; the line is the mean over "
      "seeds, the band its 95 % Student interval, or the range of fewer than "
      "five seeds.",
    ),
    (
      "growth",
      lambda: curves.regret_growth(traces),
      "expected regret divided by the root of the round; flat is the square "
      "root law, a rise of slope 1/2 is linear regret.",
    ),
    (
      "reward",
      lambda: curves.reward_and_mix(
        traces, task_names=task_names, reward_name=reward_name
      ),
      "what each method (of many, the best eight) earned in one seed, above "
      "the true task mix of the stream.",
    ),
    *_learning(traces, unit),
    (
      "tree",
      lambda: curves.tree_growth(traces),
      "leaves and depth of the trees.",
    ),
  ]
  # Merge weights come after the rewards that they earned.
  if shown in traces:
    caption = f"merge weights of {shown} in one seed, above the true task mix."
    weights = functools.partial(
      curves.merge_weights, traces[shown], task_names=task_names
    )
    drawn.insert(3, ("weights", weights, caption))
  # A figure is None where the traces do not hold its values.
  report = []
  for name, draw, caption in drawn:
    file = f"{prefix}{name}.png"
    with surviving(file):
      if (figure := draw()) is not None:
        parts.save(figure, Path(workdir) / file)
        report.append(ReportFigure(file, _sentence(where + caption)))
  return report


def _learning(
  traces: Mapping[str, Trace], unit: str
) -> list[tuple[str, Draw, str]]:
  return [
    (
      "optimal_play",
      lambda: learning.optimal_play(traces),
      "share of rounds whose gap is small against the range of rewards that "
      "any of the methods met (of many, the best eight, here and below).",
    ),
    (
      "model_error",
      lambda: learning.model_error(traces, unit=unit),
      "size of the error of the reward that a method predicted for what it "
      "played.",
    ),
    (
      "bonus",
      lambda: learning.exploration_bonus(traces, unit=unit),
      "size of the exploration bonus, or of a Thompson sampler's draw, of what "
      "was played.",
    ),
  ]


def finish(
  workdir: str | os.PathLike[str],
  *,
  title: str,
  columns: Sequence[tables.Column],
  figures: Sequence[ReportFigure],
  notes: Sequence[str] = (),
  methods: Sequence[str] | None = None,
) -> None:
  """Prints the table of `summary.json` and writes `report.html`.

  Args:
    workdir: the run's folder.
    title: of the report.
    columns: of the table.
    figures: of the report.
    notes: paragraphs of the report.
    methods: rows of the table; None for all.
  """
  workdir = Path(workdir)
  summary = reporting.read_json(workdir / reporting.SUMMARY)
  rows = tables.rows(summary, columns, methods=methods)
  tables.print_rows(rows)
  path = html.write_report(
    workdir, title=title, rows=rows, figures=figures, notes=notes
  )
  print(f"report: {printable(str(path))}")


def load_groups(
  workdir: str | os.PathLike[str],
) -> dict[str, dict[str, Trace]]:
  """Reads `trace.npz` as stream -> method -> trace.

  The name of a trace is `<stream>/<method>`; a stream may contain slashes.
  """
  return by_stream(trace.load(Path(workdir) / reporting.TRACE))


def by_stream(traces: Mapping[str, Trace]) -> dict[str, dict[str, Trace]]:
  """Traces named `<stream>/<method>` as stream -> method -> trace."""
  groups: dict[str, dict[str, Trace]] = {}
  for name, one in traces.items():
    stream, _, method = name.rpartition("/")
    groups.setdefault(stream, {})[method] = one
  return groups


def _sentence(text: str) -> str:
  return text[:1].upper() + text[1:]
