"""A run's folder: its config and its summary.

`config.json` says what was run and on what, `summary.json` holds the figures
that a reader wants under flat keys such as `drift/tanbr/expected_regret`. A key
with `_low` and `_high` beside it is an estimate with a 95 % interval.
"""

import contextlib
import importlib.metadata
import os
import platform
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from tanbr_jax.online import estimates, processes, regret
from tanbr_jax.online.estimates import Estimate
from tanbr_jax.online.trace import Trace
from tanbr_jax.storage import atomic, lock
from tanbr_jax.storage.atomic import read_json
from tanbr_jax.storage.numerics import differences, flatten, numerics

__all__ = [
  "CONFIG",
  "SUMMARY",
  "TRACE",
  "circumstances",
  "estimate_entries",
  "open_workdir",
  "read_json",
  "summarise",
  "write_summary",
]

CONFIG, SUMMARY, TRACE = "config.json", "summary.json", "trace.npz"
# Fields of a config that say where a run is played, not which.
_PLACES = ("devices",)
_PACKAGES = ("tanbr-jax", "jax", "jaxlib", "numpy")


def open_workdir(
  path: str | os.PathLike[str],
  config: Mapping[str, Any],
  *,
  seeds: Sequence[int],
  corpus_fingerprint: str | None = None,
) -> Path:
  """Makes or reopens a run's folder, locks it and writes its `config.json`.

  Of several processes that share a run the first does all that, and the others
  wait to see whether it may; their configs must be the same.

  The folder is this process's until the innermost `lock.scope` ends, or the
  process. Other versions or another kind of device than those of the first
  start are a warning in the log: a resumed run may then differ in last bits.
  Other settings of JAX that decide the bits are an error, see `numerics`.

  Args:
    path: the folder.
    config: everything that decides the run (a `ConfigDict` is fine); a field
      `devices` is written and does not count.
    seeds: the seeds of the run.
    corpus_fingerprint: of the text, where there is any.

  Returns:
    The folder.

  Raises:
    ValueError: the folder cannot be written, is in use by another process,
      holds a run of another config or under other settings, or a `config.json`
      that was damaged.
  """
  path = Path(path)
  decides = {
    "config": atomic.jsonable(_as_dict(config)),
    "seeds": [int(seed) for seed in seeds],
    "corpus_fingerprint": corpus_fingerprint,
    "numerics": numerics(),
  }

  def open_here() -> None:
    _check_writable(path)
    with contextlib.ExitStack() as held:
      held.enter_context(lock.hold_folder(path))
      _compare_config(path, decides)
      lock.keep(held.pop_all())

  processes.agree(str(path), flatten(_without_places(decides)))
  processes.first_alone(open_here)
  return path


def _without_places(decides: Mapping[str, Any]) -> dict[str, Any]:
  config = {k: v for k, v in decides["config"].items() if k not in _PLACES}
  return {**decides, "config": config}


def _compare_config(path: Path, decides: dict[str, Any]) -> None:
  """Writes a new folder's config, or compares an old one's."""
  if not (path / CONFIG).exists():
    atomic.write_json(path / CONFIG, decides | circumstances())
    return
  before = read_json(path / CONFIG, strict=True)
  before, decides = _without_places(before), _without_places(decides)
  if differing := differences(before, decides):
    raise ValueError(f"{path} holds a run of another config: {differing}")
  if changed := differences(before, circumstances()):
    logging.warning("resumed under other circumstances: %s", changed)


def summarise(
  trace: Trace, *, reward_range: np.ndarray | None = None
) -> dict[str, float]:
  """The figures of one method: rewards, regrets, growth, learning, speed.

  Args:
    trace: of the method.
    reward_range: [S], see `regret.optimal_play`; None for this trace's own.

  Returns:
    Of all rounds: `mean_reward`, `expected_regret`, `realised_regret`,
    `regret_over_root` (expected regret over the root of T), `optimal_play_rate`
    (share of rounds whose gap is within 1 % of the rewards' range). Of the last
    decade of rounds: `growth_exponent`. Of the last quarter, as means:
    `last_quarter_reward` (expected), `simple_regret`, and where the method
    reports them `model_error`, `exploration_bonus`. Of the last round, where
    there is a tree: `num_leaves`, `max_depth`. All but the rewards are means
    over seeds with `_low` and `_high`. Then `rounds_per_second` (of each seed),
    `slots_per_second` (of all seeds), `nonfinite_rewards` and
    `nonfinite_signals`.
  """
  quarter = max(1, trace.num_rounds // 4)
  per_seed = _per_seed(trace, quarter, reward_range)
  summary = {
    "mean_reward": float(trace.expected_reward.mean(dtype=np.float64)),
    "last_quarter_reward": float(
      trace.expected_reward[:, -quarter:].mean(dtype=np.float64)
    ),
  }
  for key, values in per_seed.items():
    summary |= estimate_entries(key, estimates.mean(values))
  exponent = regret.growth_exponent(regret.expected(trace))
  return {
    **summary,
    **estimate_entries("growth_exponent", exponent),
    "rounds_per_second": trace.rounds_per_second,
    "slots_per_second": trace.num_seeds * trace.rounds_per_second,
    "nonfinite_rewards": int(trace.nonfinite_rewards.sum()),
    "nonfinite_signals": int(trace.nonfinite_signals.sum()),
  }


def _per_seed(
  trace: Trace, quarter: int, reward_range: np.ndarray | None
) -> dict[str, np.ndarray]:
  """The figures of each seed, [S] each."""
  expected = regret.expected(trace)[:, -1]
  optimal = regret.optimal_play(trace, scale=reward_range)
  figures = {
    "expected_regret": expected,
    "realised_regret": regret.realised(trace)[:, -1],
    "regret_over_root": expected / np.sqrt(trace.num_rounds),
    "simple_regret": regret.simple(trace)[:, -quarter:].mean(axis=1),
    "optimal_play_rate": optimal.mean(axis=1),
  }
  for key, curve in (
    ("model_error", regret.model_error(trace)),
    ("exploration_bonus", regret.exploration_bonus(trace)),
  ):
    if curve is not None:
      figures[key] = curve[:, -quarter:].mean(axis=1)
  for key in ("num_leaves", "max_depth"):
    if key in trace.aux:
      figures[key] = trace.aux[key][:, -1]
  return figures


def estimate_entries(key: str, estimate: Estimate) -> dict[str, float]:
  """`key`, `key_low` and `key_high` of an estimate."""
  value, low, high = estimate
  return {key: value, f"{key}_low": low, f"{key}_high": high}


def write_summary(
  workdir: str | os.PathLike[str], summary: Mapping[str, Any]
) -> None:
  """Writes `summary.json`; a value that is not finite becomes null.

  Raises:
    ValueError: a value is neither a number nor a string.
  """
  for key, value in summary.items():
    if not (
      value is None or isinstance(value, (str, bool)) or np.isscalar(value)
    ):
      raise ValueError(f"summary must be flat, got {key}={value!r}")
  with lock.hold_folder(workdir):
    atomic.write_json(Path(workdir) / SUMMARY, summary)


def _check_writable(path: Path) -> None:
  probe = path / f".{uuid.uuid4().hex}.tmp"
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b"")
    probe.unlink()
  except OSError as error:
    raise ValueError(
      f"workdir must be writable, got {path}: {error.strerror}"
    ) from error


def _as_dict(config: Mapping[str, Any]) -> Mapping[str, Any]:
  return config.to_dict() if hasattr(config, "to_dict") else config


def circumstances(packages: Sequence[str] = ()) -> dict[str, Any]:
  """Versions, of further packages besides our own needs, and the device."""
  return {
    "versions": {
      "python": platform.python_version(),
      **{name: _version(name) for name in (*_PACKAGES, *packages)},
    },
    "device": f"{jax.devices()[0].device_kind} x{jax.device_count()}",
  }


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None
