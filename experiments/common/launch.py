"""Command lines: flags, errors of one line, names with their nearest match."""

import contextlib
import difflib
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.common import signals
from tanbr_jax.storage import cache, lock

ROOT = Path(__file__).parents[2]


def start(
  run: Callable[..., Any],
  *,
  config: str,
  workdir: str,
  has_bars: bool = False,
  spreads: bool = False,
) -> None:
  """Parses the flags and calls `run(config, workdir=...)`.

  A known mistake costs one line: an unknown flag or field, a config file that
  is not there, and what `guarded` catches.

  Args:
    run: the experiment.
    config: the default of `--config`, relative to the repository.
    workdir: the default of `--workdir`, relative to the current folder.
    has_bars: whether `run` also takes `progress`, which `--progress` decides.
    spreads: whether several processes may share the run, see `join_processes`.
      All of them but the first are silent.
  """

  def parse(argv: Sequence[str]) -> list[str]:
    # -h shows the flags of the program and not those of every library.
    bare = ["--helpshort" if a in ("-h", "--help") else a for a in argv]
    try:
      _define(config, workdir, has_bars, spreads)
      left = list(flags.FLAGS(bare))
      if len(left) > 1:
        _stop(f"unknown arguments {left[1:]}")
      _keep_compiled_programs(flags.FLAGS.config)
    except (AttributeError, KeyError) as error:
      _stop(f"unknown config field {_innermost(error)}")
    except OSError as error:  # ml_collections' own, its last line says why.
      _stop(f"config file: {str(error).splitlines()[-1]}")
    except flags.Error as error:
      _stop(str(error))
    return left

  def main(argv: Sequence[str]) -> None:
    del argv  # nothing is left of it
    found = flags.FLAGS
    if found.verbosity <= 0:
      logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    options = {"progress": found.progress} if has_bars else {}
    with guarded(), contextlib.ExitStack() as stack:
      if spreads and not join_processes(
        found.distributed,
        coordinator=found.coordinator,
        num_processes=found.num_processes,
        process_id=found.process_id,
      ):
        silent = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(silent))
        options = {name: False for name in options}
      run(found.config, workdir=found.workdir, **options)

  with guarded():
    app.run(main, flags_parser=parse)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
  """Runs a command: one line for a mistake, and for an end before the end.

  A ValueError of one line and an OSError that names a file exit with 1. Ctrl-C
  and SIGTERM print how to resume and exit with 130 and 143. Every other
  exception keeps its traceback, as do errors with `--verbosity=1`. Locks of
  folders are released, and characters that the terminal lacks are escaped.
  """
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
      stream.reconfigure(errors="backslashreplace")
  with contextlib.ExitStack() as stack:
    stack.enter_context(signals.raising())
    stack.enter_context(lock.scope())
    try:
      yield
    except (ValueError, OSError) as error:
      is_plain = isinstance(error, ValueError) or error.filename is not None
      if not is_plain or "\n" in str(error) or _is_verbose():
        raise
      _stop(_text(error))
    except KeyboardInterrupt:
      sys.exit(signals.tell(signal.SIGINT))
    except signals.Terminated:
      sys.exit(signals.tell(signal.SIGTERM))


def _is_verbose() -> bool:
  return flags.FLAGS.is_parsed() and flags.FLAGS.verbosity > 0


def _text(error: ValueError | OSError) -> str:
  if isinstance(error, OSError) and error.filename is not None:
    return f"{error.filename}: {error.strerror}"
  return str(error)


def join_processes(
  distributed: bool,
  *,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> bool:
  """Joins the other processes of a run, and tells whether this is the first.

  Args:
    distributed: whether there are others; False joins nobody.
    coordinator: host:port of process 0; None, as the two below, where JAX finds
      it in the environment (Slurm, Open MPI, Kubernetes, Cloud TPU).
    num_processes: of the run.
    process_id: from 0.

  Raises:
    ValueError: the numbers are not those of a process, or the processes do not
      find each other.
  """
  given = (coordinator, num_processes, process_id)
  if not distributed:
    if given != (None, None, None):
      raise ValueError(
        "coordinator, num_processes and process_id need --distributed"
      )
    return True
  if None in given and given != (None, None, None):
    raise ValueError(
      "coordinator, num_processes and process_id go together, got "
      f"coordinator={coordinator!r}, num_processes={num_processes}, "
      f"process_id={process_id}"
    )
  if None not in given and not 0 <= process_id < num_processes:
    raise ValueError(
      "process_id must be in [0, num_processes), got "
      f"process_id={process_id}, num_processes={num_processes}"
    )
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except (ValueError, RuntimeError) as error:
    text = " ".join(str(error).split())
    raise ValueError(f"the processes do not find each other: {text}") from error
  return jax.process_index() == 0


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


def counts(text: str, *, kind: str) -> list[int]:
  """Reads a comma list of positive integers, such as "1,32".

  Raises:
    ValueError: if it is anything else.
  """
  words = [word.strip() for word in str(text).split(",")]
  if not all(word.isdecimal() and int(word) > 0 for word in words):
    raise ValueError(
      f"{kind} must be a comma list of positive integers, got {kind}={text!r}"
    )
  return [int(word) for word in words]


def suggest(name: str, known: Iterable[str]) -> str:
  """The nearest known name, if any, and all of them."""
  known = list(known)
  near = difflib.get_close_matches(name, known, n=1)
  hint = f", did you mean {near[0]!r}?" if near else ""
  return f"{hint} (known: {', '.join(known)})"


def _define(config: str, workdir: str, has_bars: bool, spreads: bool) -> None:
  """Defines the flags, which -h then names.

  They are defined when an experiment starts, not when its module is imported:
  a module that is imported for its functions leaves absl's flags alone.
  """
  config_flags.DEFINE_config_file(
    "config", str(ROOT / config), "The run's config file."
  )
  _take_files_whole(flags.FLAGS["config"].parser)
  flags.DEFINE_string("workdir", workdir, "The run's folder.")
  if has_bars:
    flags.DEFINE_bool("progress", True, "Draw progress bars.")
  shown = ["config", "workdir"] + ["progress"] * has_bars
  if spreads:
    flags.DEFINE_bool("distributed", False, "One of several processes.")
    flags.DEFINE_string("coordinator", None, "host:port of process 0.")
    flags.DEFINE_integer("num_processes", None, "Processes of the run.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
    shown += ["distributed", "coordinator", "num_processes", "process_id"]
  for name in shown:
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def _take_files_whole(parser: flags.ArgumentParser) -> None:
  """Makes a file whose name holds a colon a file, not a file's argument."""
  split = parser.parse

  def parse(path: str) -> ml_collections.ConfigDict:
    if ":" in path and Path(path).is_file():
      return runpy.run_path(path)["get_config"]().lock()
    return split(path)

  parser.parse = parse


def _keep_compiled_programs(config: ml_collections.ConfigDict) -> None:
  """Keeps what XLA compiled between runs: a third of a short run's time."""
  folder = cache.cache_dir(config.get("cache_dir") or None)
  jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _innermost(error: BaseException) -> str:
  """The message of ml_collections, which wraps a KeyError in another error."""
  while error.args and isinstance(error.args[0], BaseException):
    error = error.args[0]
  return ". ".join(str(error.args[0]).splitlines())


def _stop(message: str) -> Any:
  print(f"error: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(1)
