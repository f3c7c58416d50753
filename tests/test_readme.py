"""The README's programs run as they stand."""

import pathlib
import re

import numpy as np
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


def test_the_bandit_program_prints_a_regret(capsys):
  exec(compile(PROGRAMS[0], "README.md", "exec"), {})
  final = np.array(capsys.readouterr().out.strip("[]\n").split(), float)
  assert final.shape == (2,)
  # Regret against a known optimum is never negative.
  assert np.all(final > 0)


def test_the_merging_program_prints_the_share_of_expert_bytes(capsys):
  exec(compile(PROGRAMS[1], "README.md", "exec"), {})
  assert float(capsys.readouterr().out) == pytest.approx(1 / 8)


def test_the_bandit_of_ones_own_is_between_the_average_and_lin_ucb(capsys):
  exec(compile(PROGRAMS[2], "README.md", "exec"), {})
  lines = map(str.split, capsys.readouterr().out.splitlines())
  final = {name: float(value) for name, value in lines}
  assert 0 < final["lin_ucb"] < final["keep_best"] < final["uniform"]
