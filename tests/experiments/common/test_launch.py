import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.common import launch

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
  "argv, message",
  [
    (["--config.nois=1"], "unknown config field 'nois', did you mean 'noise'?"),
    (
      [f"--config={QUICK}", "--config.mix_options.drift.rat=1"],
      "unknown config field 'mix_options.drift.rat', did you mean 'rate'?",
    ),
    (["--config", QUICK, "-config.a.b=1"], "unknown config field 'a.b' (known"),
  ],
)
def test_unknown_fields(argv, message):
  assert launch._unknown_field(argv, QUICK).startswith(message)


def test_known_fields_are_not_blamed():
  assert launch._unknown_field(["--config.noise=1"], QUICK) is None


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--config.nois=1"], "error: unknown config field 'nois', did you mean"),
    (["--config.num_rounds=0"], "error: num_rounds must be at least 1, got 0"),
  ],
)
def test_a_mistake_costs_one_line(arguments, message, tmp_path):
  env = dict(os.environ, JAX_PLATFORMS="cpu", TANBR_JAX_CACHE=str(tmp_path))
  workdir = tmp_path / "run"
  command = [sys.executable, "-m", "experiments.regret", *arguments]
  done = subprocess.run(
    [*command, f"--workdir={workdir}"],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert done.returncode == 1 and done.stdout == ""
  assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
  assert not workdir.exists()
