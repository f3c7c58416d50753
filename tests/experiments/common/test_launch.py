import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from experiments.common import launch

# How ml_collections loads a config file.
pytestmark = pytest.mark.filterwarnings(
  "ignore:the load_module:DeprecationWarning"
)

ROOT = Path(__file__).parents[3]
QUICK = str(ROOT / "configs" / "regret" / "quick.py")


def test_names():
  known = ("tanbr", "uniform")
  assert launch.names("uniform, tanbr", known=known, kind="bandit") == [
    "uniform",
    "tanbr",
  ]
  with pytest.raises(ValueError) as error:
    launch.names("tanbr,unifrm", known=known, kind="bandit")
  assert str(error.value) == (
    "unknown bandit 'unifrm', did you mean 'uniform'? (known: tanbr, uniform)"
  )
  for text in ("", "tanbr,tanbr"):
    with pytest.raises(ValueError, match=f"different names, got '{text}'"):
      launch.names(text, known=known, kind="bandit")


@pytest.mark.parametrize(
  "arguments, message",
  [
    (
      ["--config.nois=1"],
      "unknown config field 'nois'. Did you mean \"noise\"",
    ),
    (
      [f"--config={QUICK}", "--config.mix_options.drift.rat=1"],
      "unknown config field 'rat'. Did you mean \"rate\"",
    ),
    (["--config", QUICK, "-config.a.b=1"], "unknown config field 'a'\n"),
    (["--config=no.py"], "config file: [Errno 2] No such file or directory: "),
    (["--config=no.py", "--config.noise=1"], "config file: [Errno 2] No such"),
    (["--config.num_rounds=many"], "flag --config.num_rounds=many: invalid"),
    (["--work=x"], "Unknown command line flag 'work'"),
    (["more"], "unknown arguments ['more']"),
  ],
)
def test_a_mistake_in_the_flags_costs_one_line(arguments, message, start):
  code, printed = start(arguments)
  assert code == 1 and printed.out == ""
  assert printed.err.startswith(f"error: {message}")
  assert printed.err.count("\n") == 1


def test_help_names_the_flags(start):
  _, printed = start(["-h"])
  for flag in ("--config:", "--workdir:", "--[no]progress:"):
    assert flag in printed.out


@pytest.fixture
def start(monkeypatch, capsys):
  """Starts an experiment that stops before its `main`; its code and output."""

  def start(arguments):
    monkeypatch.setattr(sys, "argv", ["experiment", *arguments])
    with pytest.raises(SystemExit) as stop:
      launch.start(print, config=QUICK, workdir="run", has_bars=True)
    return stop.value.code, capsys.readouterr()

  yield start
  for name in list(flags.FLAGS):
    if name.split(".")[0] in ("config", "workdir", "progress"):
      delattr(flags.FLAGS, name)
  flags.FLAGS.unparse_flags()


@pytest.mark.parametrize(
  "name", [b"a:b <$x$> '\"&.py", b"line\nend.py", b"no UTF-8 \xff.py"]
)
def test_a_config_file_may_have_any_name(name, tmp_path, start):
  path = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
  with open(path, "w") as file:
    file.write(
      "import ml_collections\n"
      "def get_config():\n"
      "  return ml_collections.ConfigDict({'noise': 0.0})\n"
    )
  # A mistake in a flag, which names a field that the file has.
  code, printed = start([f"--config={path}", "--config.nois=1"])
  assert code == 1
  assert 'Did you mean "noise"' in printed.err


def test_a_bad_value_costs_one_line(tmp_path):
  workdir = tmp_path / "run"
  arguments = ["--config.num_rounds=0", f"--workdir={workdir}"]
  done = subprocess.run(
    [sys.executable, "-m", "experiments.regret", *arguments],
    cwd=ROOT,
    env=dict(os.environ, JAX_PLATFORMS="cpu", TANBR_JAX_CACHE=str(tmp_path)),
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert done.returncode == 1 and done.stdout == ""
  assert done.stderr.startswith("error: num_rounds must be at least 1, got ")
  assert done.stderr.count("\n") == 1
  assert not workdir.exists()
