"""A run's folder: its config and its summary.

`config.json` says what was run and on what, `summary.json` holds the figures
that a reader wants under flat keys such as `drift/tanbr/expected_regret`. A key
with `_low` and `_high` beside it is an estimate with a 95 % interval.
"""

import importlib.metadata
import json
import os
import platform
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from tanbr_jax.online import estimates, regret
from tanbr_jax.online.estimates import Estimate
from tanbr_jax.online.trace import Trace
from tanbr_jax.storage import atomic

CONFIG, SUMMARY, TRACE = "config.json", "summary.json", "trace.npz"
_PACKAGES = ("tanbr-jax", "jax", "jaxlib", "numpy")


def open_workdir(
  path: str | os.PathLike[str],
  config: Mapping[str, Any],
  *,
  seeds: Sequence[int],
  corpus_fingerprint: str | None = None,
) -> Path:
  """Makes or reopens a run's folder and writes its `config.json`.

  Other versions or another device than those of the first start are a warning
  in the log, not an error.

  Args:
    path: the folder.
    config: everything that decides the run (a `ConfigDict` is fine).
    seeds: the seeds of the run.
    corpus_fingerprint: of the text, where there is any.

  Returns:
    The folder.

  Raises:
    ValueError: the folder cannot be written, or holds a run of another config.
  """
  path = Path(path)
  _check_writable(path)
  # A new folder gets the config.
  decides = {
    "config": atomic.jsonable(_as_dict(config)),
    "seeds": [int(seed) for seed in seeds],
    "corpus_fingerprint": corpus_fingerprint,
  }
  present = decides | circumstances()
  if not (path / CONFIG).exists():
    atomic.write_json(path / CONFIG, present)
    return path
  # An old one is compared with it.
  before = read_json(path / CONFIG)
  if differing := _differences(before, decides):
    raise ValueError(f"{path} holds a run of another config: {differing}")
  if changed := _differences(before, circumstances()):
    logging.warning("resumed under other circumstances: %s", changed)
  return path


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
  atomic.write_json(Path(workdir) / SUMMARY, summary)


def read_json(path: str | os.PathLike[str]) -> Any:
  """Reads a JSON file.

  Raises:
    ValueError: the file is not JSON.
  """
  try:
    return json.loads(Path(path).read_text(encoding="utf-8"))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f"{path} is not JSON: {error}") from error


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


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
  """Nested mappings as one dict with dotted names."""
  if not isinstance(value, Mapping):
    return {prefix: value}
  flat = {}
  for name, entry in value.items():
    flat |= flatten(entry, f"{prefix}.{name}" if prefix else str(name))
  return flat


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  """`field=old there, new here` of every field of `now` that differs."""
  old = flatten({name: before.get(name) for name in now})
  new = flatten(now)
  absent = object()
  parts = []
  for name in sorted(old.keys() | new.keys()):
    there, here = old.get(name, absent), new.get(name, absent)
    if there != here:
      texts = ["absent" if x is absent else repr(x) for x in (there, here)]
      parts.append(f"{name}={texts[0]} there, {texts[1]} here")
  return "; ".join(parts)
