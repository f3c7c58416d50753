import io
import signal
import sys

import pytest

from experiments.common import launch
from tanbr_jax.storage import lock


def stopped(capsys, action):
  """Exit code and lines of stderr of a guarded action."""
  with pytest.raises(SystemExit) as stop, launch.guarded():
    action()
  return stop.value.code, capsys.readouterr().err.splitlines()


def raising(error):
  def action():
    raise error

  return action


@pytest.mark.parametrize(
  "number, code, word",
  [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_costs_one_line_and_frees_the_folder(
  number, code, word, capsys, tmp_path, monkeypatch
):
  command = ["python", "-m", "experiments.x", "--workdir=a b"]
  monkeypatch.setattr(sys, "orig_argv", command)
  before = signal.getsignal(signal.SIGTERM)

  def action():
    lock.keep(lock.hold_folder(tmp_path))
    signal.raise_signal(number)

  line = f"{word}; resume with: python -m experiments.x '--workdir=a b'"
  assert stopped(capsys, action) == (code, [line])
  assert list(tmp_path.iterdir()) == []
  assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_a_callback_swallows_comes_again(capsys):
  class Swallows:
    def __del__(self):
      signal.raise_signal(signal.SIGTERM)

  def action():
    Swallows()
    signal.pause()

  code, lines = stopped(capsys, action)
  assert code == 143 and len(lines) == 1


def test_errors_of_files_cost_one_line(capsys, tmp_path):
  path = tmp_path / "é\udcff"
  escaped = f"{tmp_path}/é\\udcff"
  full = OSError(28, "No space left on device", str(path))
  code, lines = stopped(capsys, raising(full))
  assert code == 1 and lines == [f"error: {escaped}: No space left on device"]
  code, lines = stopped(capsys, raising(ValueError("x must be 1")))
  assert code == 1 and lines == ["error: x must be 1"]
  # What is nobody's mistake keeps its traceback.
  for error in (OSError(5, "no file"), ValueError("a\nb"), KeyError("x")):
    with pytest.raises(type(error)), launch.guarded():
      raise error


def test_an_ascii_terminal_gets_names_escaped(monkeypatch):
  terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  monkeypatch.setattr(sys, "stdout", terminal)
  with launch.guarded():
    print("runs/\u00e9\udcff", flush=True)
  assert terminal.buffer.getvalue() == b"runs/\\xe9\\udcff\n"
