"""The README's programs run as they stand."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe

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


def test_the_program_of_the_forwards_computes_what_it_says(capsys):
  names = {}
  exec(compile(PROGRAMS[2], "README.md", "exec"), names)
  assert capsys.readouterr().out == "(4, 16, 64) (3, 4, 16, 64)\n"
  experts, x, routing = (names[name] for name in ("experts", "x", "routing"))
  # Its last y is soft with the router's gates: sums of float32, values about 1.
  routed = moe.routed(experts, x, routing)
  np.testing.assert_allclose(names["y"], routed, atol=2e-5)
  second = routing._replace(
    expert_ids=jnp.ones((64, 1), jnp.int32), gates=jnp.ones((64, 1))
  )
  np.testing.assert_allclose(
    names["ys"][1], moe.routed(experts, x, second), atol=2e-5
  )


def test_the_bandit_of_ones_own_is_between_the_average_and_lin_ucb(capsys):
  exec(compile(PROGRAMS[3], "README.md", "exec"), {})
  lines = map(str.split, capsys.readouterr().out.splitlines())
  final = {name: float(value) for name, value in lines}
  assert 0 < final["lin_ucb"] < final["keep_best"] < final["uniform"]
