"""Command lines: flags, errors of one line, names with their nearest match."""

import difflib
import itertools
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from tanbr_jax.storage import cache

ROOT = Path(__file__).parents[2]


class Flags:
  """The flags that every experiment has.

  They are defined when the experiment runs, not when its module is imported:
  a module that is imported for its functions leaves absl's flags alone.

  Attributes:
    default: the config file that is used when none is named.
    default_workdir: the run's folder when none is named.
  """

  def __init__(self, default: str, *, workdir: str) -> None:
    """Names the defaults.

    Args:
      default: a config file, relative to the repository.
      workdir: a folder, relative to the current one.
    """
    self.default = str(ROOT / default)
    self.default_workdir = workdir

  def define(self) -> None:
    """Defines `--config`, `--workdir` and `--progress`."""
    self._config = config_flags.DEFINE_config_file(
      "config", self.default, "The run's config file."
    )
    self._workdir = flags.DEFINE_string(
      "workdir", self.default_workdir, "The run's folder."
    )
    self._progress = flags.DEFINE_bool("progress", True, "Draw progress bars.")

  @property
  def config(self) -> ml_collections.ConfigDict:
    """The config with its overrides, frozen against typing mistakes."""
    return self._config.value

  @property
  def workdir(self) -> str:
    """The run's folder."""
    return self._workdir.value

  @property
  def progress(self) -> bool:
    """Whether to draw progress bars."""
    return self._progress.value


def run(main: Callable[[], Any], *, command_line: Flags) -> None:
  """Runs `main` after parsing flags; a known mistake costs one line.

  A ValueError whose message is one line is such a mistake and exits with 1;
  every other exception keeps its traceback, as do all with `--verbosity=1`.
  """

  def parse(argv: Sequence[str]) -> list[str]:
    try:
      return list(flags.FLAGS(_bare_help(argv)))
    except flags.Error as error:
      return _stop(str(error))

  def guarded(argv: Sequence[str]) -> None:
    if flags.FLAGS.verbosity <= 0:
      logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    if len(argv) > 1:
      _stop(f"unknown arguments {argv[1:]}")
    try:
      _keep_compiled_programs(command_line.config)
      main()
    except ValueError as error:
      if "\n" in str(error) or flags.FLAGS.verbosity > 0:
        raise
      _stop(str(error))

  path = _config_path(sys.argv, command_line.default)
  if not Path(path).exists():
    _stop(f"no config file {path}")
  try:
    command_line.define()
  except AttributeError as error:  # how ml_collections says "no such field"
    _stop(_unknown_field(sys.argv, command_line.default) or str(error))
  app.run(guarded, flags_parser=parse)


def names(text: str, *, known: Iterable[str], kind: str) -> list[str]:
  """Splits a comma list and checks its names.

  Args:
    text: for instance "tanbr,uniform".
    known: allowed names.
    kind: what they are, for the error.

  Raises:
    ValueError: a name is unknown or given twice, or there is none.
  """
  known = sorted(known)
  found = [name.strip() for name in text.split(",") if name.strip()]
  if not found or len(set(found)) < len(found):
    raise ValueError(f"{kind} must be different names, got {text!r}")
  for name in found:
    if name not in known:
      raise ValueError(f"unknown {kind} {name!r}{suggest(name, known)}")
  return found


def suggest(name: str, known: Iterable[str]) -> str:
  """The nearest known name, if any, and all of them."""
  known = list(known)
  near = difflib.get_close_matches(name, known, n=1)
  hint = f", did you mean {near[0]!r}?" if near else ""
  return f"{hint} (known: {', '.join(known)})"


def _keep_compiled_programs(config: ml_collections.ConfigDict) -> None:
  """Keeps what XLA compiled between runs: a third of a short run's time."""
  folder = cache.cache_dir(config.get("cache_dir") or None)
  jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _bare_help(argv: Sequence[str]) -> list[str]:
  return ["--helpshort" if a in ("-h", "--help") else a for a in argv]


def _config_path(argv: Sequence[str], default: str) -> str:
  path = default
  for arg, following in itertools.zip_longest(argv, argv[1:]):
    if match := re.fullmatch(r"--?config=(.*)", arg):
      path = match[1]
    elif re.fullmatch(r"--?config", arg) and following:
      path = following
  return path.split(":")[0]


def _unknown_field(argv: Sequence[str], default: str) -> str | None:
  """Which `--config.<field>` the config file does not have."""
  config = runpy.run_path(_config_path(argv, default))["get_config"]()
  for arg in argv:
    if match := re.match(r"--?config\.([^=]+)", arg):
      node = config
      for part in match[1].split("."):
        if not isinstance(node, ml_collections.ConfigDict) or part not in node:
          fields = list(node) if hasattr(node, "keys") else []
          return f"unknown config field {match[1]!r}{suggest(part, fields)}"
        node = node[part]
  return None


def _stop(message: str) -> Any:
  print(f"error: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(1)
