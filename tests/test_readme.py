"""The programs of the READMEs run as they stand."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import bandits, moe, regret, rollout
from tanbr_jax.environments import mixes, synthetic

ROOT = pathlib.Path(__file__).parents[1]


def run(readme, index):
  """The names that a program of a README defines."""
  path, names = ROOT / readme, {}
  programs = re.findall(r"```python\n(.*?)```", path.read_text(), re.S)
  exec(compile(programs[index], str(path), "exec"), names)
  return names


def test_the_bandit_program_prints_a_regret(capsys):
  run("README.md", 0)
  final = np.array(capsys.readouterr().out.strip("[]\n").split(), float)
  assert final.shape == (2,)
  # Regret against a known optimum is never negative.
  assert np.all(final > 0)


def test_the_program_of_the_seam_counts_the_pairs_that_it_leaves():
  names = run("README.md", 2)

  def see_gates(_, moe_input, moe_output):
    return moe_input.routing.gates

  model, params = names["model"], names["params"]
  tokens = jnp.arange(32).reshape(2, 16)
  # Nothing is below a gate of zero.
  everything = Partial(names["skip_weak"], jnp.zeros(2))

  @jax.jit
  def run_both(params):
    return (
      model.apply(params, tokens, observe=Partial(see_gates, None)),
      model.apply(params, tokens, reroute=everything),
    )

  (logits, gates), kept = run_both(params)
  left = np.sum(np.asarray(gates) >= 0.4, axis=(1, 2))
  # The first layer sees what it sees without a reroute.
  assert names["pairs"][0] == left[0] and 32 <= left[0] < 64
  assert 32 <= names["pairs"][1] < 64
  np.testing.assert_array_equal(kept, logits)


@pytest.mark.parametrize(
  ("rival", "is_better"),
  [("uniform", False), pytest.param("lin_ucb", True, marks=pytest.mark.slow)],
)
def test_the_bandit_of_ones_own_is_between_the_average_and_lin_ucb(
  rival, is_better
):
  sizes = {"num_experts": 4, "num_tasks": 3}
  environment = synthetic.synthetic(
    "quadratic", **sizes, task_mix=mixes.drift(num_tasks=3)
  )
  own, other = (
    regret.expected(
      rollout.run(
        make(**sizes),
        environment,
        num_rounds=500,
        seeds=range(4),
        progress=False,
      )
    )[:, -1].mean()
    for make in (run("README.md", 3)["keep_best"], bandits.REGISTRY[rival])
  )
  assert 0 < min(own, other) and (other < own) == is_better


@pytest.mark.slow
def test_the_program_of_the_forwards_computes_what_it_says(capsys):
  names = run("experiments/kernels/README.md", 0)
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
