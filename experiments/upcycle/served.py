"""The table and figure of the online job in experiments/upcycle/README.md.

  python -m experiments.upcycle.served --run=runs/online_smollm2 \
    --accuracy=runs/online_smollm2_accuracy --write

Prints the table; without `--run` from the kept `served.json`. With both flags
also draws `served.png`. `--accuracy` is a run of the same config with
`--config.reward=accuracy`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import readme_block
from experiments.upcycle import figures
from tanbr_jax.online import trace
from tanbr_jax.plots import parts
from tanbr_jax.report import workdir as reporting

RESULTS = Path(__file__).with_name("served.json")
FIGURE = "served.png"
# Method -> what it is told, in the table's order.
TOLD = {
  "oracle": "the truth",
  "best_static": "the truth, in hindsight",
  "meta_gradient": "gradient",
  "tanbr": "rewards",
  "multitask_ts": "rewards by task",
  "lin_ucb": "rewards by task",
  "follow_usage": "the router's usage",
  "follow_task_mix": "the mix, usage by task",
  "routed": "nothing, all experts",
  "uniform": "nothing",
}
# What the table says once of both runs.
_STREAM = ("num_rounds", "num_seeds", "requests", "context", "mix")
_FIGURES = ("mean_reward", "last_quarter_reward")
_ESTIMATES = ("expected_regret", "gap_recovered")


def collect(run: Path) -> dict[str, Any]:
  """What is kept of a run, and of that of accuracy beside it.

  Raises:
    ValueError: if a run has another reward or no method of the table, or their
      streams differ.
  """
  found = {reward: _read(folder) for reward, folder in _folders(run).items()}
  for reward, one in found.items():
    if one["reward"] != reward:
      raise ValueError(f"reward must be {reward!r}, got {one['reward']!r}")
    if not one["methods"]:
      raise ValueError(f"the run of {reward} has none of {[*TOLD]}")
    for name in _STREAM:
      if one[name] != found["log_likelihood"][name]:
        raise ValueError(
          f"the runs must have one {name}, got "
          f"{found['log_likelihood'][name]!r} and {one[name]!r}"
        )
  return found


def _folders(run: Path) -> dict[str, Path]:
  """Folders of the runs that are given, by their reward."""
  found = {"log_likelihood": run}
  if flags.FLAGS.accuracy:
    found["accuracy"] = Path(flags.FLAGS.accuracy)
  return found


def draw(folders: Mapping[str, Path], path: Path) -> None:
  """Draws the runs' regret; folders by reward."""
  runs = {
    reward: trace.load(folder / reporting.TRACE)
    for reward, folder in folders.items()
  }
  parts.save(figures.served(runs, methods=list(TOLD)), path)


def _read(run: Path) -> dict[str, Any]:
  """Figures by method, and the circumstances."""
  record = reporting.read_json(run / reporting.CONFIG)
  summary = reporting.read_json(run / reporting.SUMMARY)
  config = record["config"]
  return {
    "reward": config["reward"],
    "num_rounds": config["num_rounds"],
    "num_seeds": config["num_seeds"],
    "requests": config["requests"],
    "context": config["model"]["context"],
    "mix": config["mix"],
    "jax": record["versions"]["jax"],
    "device": record["device"],
    "methods": {
      method: _method(summary, method)
      for method in TOLD
      if f"{method}/mean_reward" in summary
    },
  }


def _method(summary: Mapping[str, Any], method: str) -> dict[str, Any]:
  found: dict[str, Any] = {
    name: summary[f"{method}/{name}"] for name in _FIGURES
  }
  for name in _ESTIMATES:
    if f"{method}/{name}" in summary:
      found[name] = [
        summary[f"{method}/{name}{end}"] for end in ("", "_low", "_high")
      ]
  return found


def text(kept: Mapping[str, Any]) -> str:
  """The circumstances and the table."""
  losses, accuracies = kept["log_likelihood"], kept.get("accuracy")
  titles = ["method", "is told", "loss", "last quarter", "gap recovered"]
  titles.append("loss above the oracle's")
  if accuracies:
    titles += ["accuracy", "below the oracle's"]
  rows = []
  for method, one in losses["methods"].items():
    row = [
      method,
      TOLD[method],
      f"{-one['mean_reward']:.3f}",
      f"{-one['last_quarter_reward']:.3f}",
      _estimate(one.get("gap_recovered"), 2),
      _per_round(one, losses["num_rounds"], 3),
    ]
    if accuracies:
      other = accuracies["methods"].get(method)
      row += ["-", "-"]
      if other:
        row[-2:] = [
          f"{other['mean_reward']:.3f}",
          _per_round(other, accuracies["num_rounds"], 4),
        ]
    rows.append(row)
  return (
    f"jax {losses['jax']}, {losses['device']}; {losses['num_rounds']:,} slots "
    f"of {losses['requests']} requests of {losses['context']} tokens of test "
    f"text, mix '{losses['mix']}', {losses['num_seeds']} seeds; 95 % intervals "
    "over seeds.\n\n" + readme_block.table(titles, rows)
  )


def _per_round(one: Mapping[str, Any], num_rounds: int, digits: int) -> str:
  regret = one["expected_regret"]
  return _estimate(
    [None if value is None else value / num_rounds for value in regret], digits
  )


def _estimate(values: Sequence[float | None] | None, digits: int) -> str:
  """A value and its interval, as far as they are there.

  One seed has no interval, and a ratio to a gap of zero no value.
  """
  if values is None or values[0] is None:
    return "-"
  value, low, high = values
  if low is None or high is None:
    return f"{value:.{digits}f}"
  return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main(argv: Sequence[str]) -> None:
  readme_block.main(argv, "served", RESULTS, collect=collect, text=text)
  given = flags.FLAGS
  if given.write and given.run:
    draw(_folders(Path(given.run)), RESULTS.with_name(FIGURE))


if __name__ == "__main__":
  readme_block.define_flags("The folder of a run.")
  flags.DEFINE_string("accuracy", "", "That of a run whose reward is accuracy.")
  app.run(main)
