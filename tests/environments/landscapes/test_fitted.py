"""The fitted family: its tables, its optimum, and the fit itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from experiments import fit_landscape, sample_landscape
from experiments.common import readme_block
from tanbr_jax.environments.landscapes import fitted
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic

TABLES = sorted(path.stem for path in fitted.FOLDER.glob("*.npz"))


def _float64(tasks):
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tasks)


def _reward(tasks, x):
  return tasks.slopes @ x - ((tasks.roots @ x) ** 2).sum(1)


@pytest.mark.parametrize("name", TABLES)
def test_the_optimum_is_that_of_scipy(name):
  num_tasks, num_experts = fitted.read(name).slopes.shape
  family = fitted.fitted(
    num_experts=num_experts, num_tasks=num_tasks, model=name
  )
  params = family.init(jax.random.key(0))
  mixes = np.random.default_rng(0).dirichlet(np.full(num_tasks, 0.25), 4)
  best = jax.jit(jax.vmap(family.optimum, (None, 0)))(
    params, jnp.asarray(mixes, jnp.float32)
  )
  assert (best >= 0).all()
  np.testing.assert_allclose(best.sum(1), 1, atol=1e-5)
  exact = _float64(params)
  low, high = family.bounds(params)
  for mix, point in zip(mixes, np.asarray(best, np.float64), strict=True):
    curvature = np.einsum("v,vfe,vfg->eg", mix, exact.roots, exact.roots)
    found = scipy.optimize.minimize(
      lambda x, mix=mix: -mix @ _reward(exact, x),
      np.full(num_experts, 1 / num_experts),
      jac=lambda x, mix=mix, h=curvature: 2 * h @ x - mix @ exact.slopes,
      method="SLSQP",
      bounds=[(0, 1)] * num_experts,
      constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
      options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(
      mix @ _reward(exact, point), -found.fun, atol=1e-4
    )
    rewards = family.reward(params, jnp.asarray(point, jnp.float32))
    np.testing.assert_allclose(rewards, _reward(exact, point), atol=1e-4)
    assert low <= rewards.min() and rewards.max() <= high


@pytest.mark.parametrize("name", TABLES)
def test_fewer_experts_are_a_face_of_the_simplex(name):
  """Three experts' weights are weights of all with zeros elsewhere."""
  family = fitted.fitted(num_experts=3, num_tasks=2, model=name)
  params = _float64(family.init(jax.random.key(1)))
  table = _float64(fitted.read(name))
  rows = [
    np.argmin(np.abs(table.slopes - s).min(1)) for s in params.slopes[:, :1]
  ]
  columns = [
    np.argmin(np.abs(table.slopes[rows[0]] - slope))
    for slope in params.slopes[0]
  ]
  x = np.array([0.2, 0.5, 0.3])
  whole = np.zeros(table.slopes.shape[1])
  whole[columns] = x
  np.testing.assert_allclose(
    _reward(params, x), _reward(table, whole)[rows], rtol=1e-5
  )


def test_a_table_that_is_not_there_or_too_small_is_named():
  with pytest.raises(ValueError, match="model must be one of .*'none'"):
    fitted.fitted(num_experts=3, num_tasks=2, model="none")
  with pytest.raises(ValueError, match="8 experts.*got num_experts=9"):
    fitted.fitted(num_experts=9, num_tasks=2, model="bytes_8")


def test_the_fit_recovers_a_concave_quadratic():
  rng = np.random.default_rng(0)
  weights = rng.dirichlet(np.full(4, 0.5), 200)
  root = rng.normal(size=(4, 4))
  slopes = rng.normal(size=4)
  rewards = weights @ slopes - ((weights @ root.T) ** 2).sum(1)
  table = fit_landscape.fit(weights, rewards)
  assert np.linalg.eigvalsh(table["curvatures"])[0] > -1e-9
  others = rng.dirichlet(np.ones(4), 50)
  wanted = others @ slopes - ((others @ root.T) ** 2).sum(1)
  np.testing.assert_allclose(
    fit_landscape.predict(table, others), wanted, atol=1e-3
  )
  share, error = fit_landscape.shares(weights, rewards)
  assert share > 0.9999 and error < 1e-2


def test_what_is_not_concave_is_fitted_by_what_is():
  """A convex parabola becomes a straight line."""
  share = np.linspace(0, 1, 50)
  weights = np.stack([share, 1 - share], axis=1)
  table = fit_landscape.fit(weights, share**2)
  # The best straight line through a parabola on [0, 1] errs by 1/6 at the ends.
  errors = np.abs(fit_landscape.predict(table, weights) - share**2)
  assert 0.1 < errors.max() < 0.2


def test_tables_of_other_models_are_kept(tmp_path, monkeypatch):
  monkeypatch.setattr(fitted, "FOLDER", tmp_path)
  monkeypatch.setattr(fit_landscape, "RESULTS", tmp_path / "kept.json")
  other = {"num_experts": 3}
  atomic.write_json(fit_landscape.RESULTS, {"other_3": other, "made_2": other})
  weights = np.random.default_rng(0).dirichlet(np.ones(2), 40)
  # One task's rewards 3 x_0 - x_0^2, and an accuracy that goes with them.
  rewards = (3 * weights[:, :1] - weights[:, :1] ** 2).astype(np.float32)
  samples = {"weights": weights, "accuracy": 0.1 * rewards}
  atomic.write_arrays(
    tmp_path / "runs" / "made_2" / sample_landscape.FILE,
    {"log_likelihood": rewards, **samples},
  )
  found = fit_landscape.collect(tmp_path / "runs")
  assert list(found) == ["made_2", "other_3"] and found["other_3"] == other
  assert found["made_2"]["num_points"] == 40
  table = fitted.read("made_2")
  for x in weights[:3]:
    wanted = 3 * x[0] - x[0] ** 2
    np.testing.assert_allclose(_reward(table, x), [wanted], atol=1e-2)


def test_a_tasks_spread_is_that_of_its_errors_and_what_is_explained():
  row = {"num_experts": 2, "num_points": 5, "accuracy": [0.5]}
  # Errors of .3 that leave .36 of the variance: a deviation of .3 / .6.
  row |= {"explained": [0.64], "errors": [0.3]}
  assert "| 0.300 of 0.50 |" in fit_landscape.table({"made_2": row})


def test_the_readme_and_the_tables_are_those_of_the_kept_results():
  results = workdir.read_json(fit_landscape.RESULTS)
  readme = fit_landscape.RESULTS.with_name("README.md").read_text("utf-8")
  made = fit_landscape.table(results)
  assert readme_block.block(readme, fit_landscape.NAME) == made
  assert {name for name in results if name != "checksum"} == set(TABLES)
