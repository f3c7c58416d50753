import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.environments import noise
from tanbr_jax.environments.requests import count_tasks, draw_tasks

V = 4
MEAN = jnp.array([0.2, 0.5, 0.8, 0.4])
MIX = jnp.array([0.1, 0.2, 0.7, 0.0])
SAMPLES = 20_000


@functools.partial(jax.jit, static_argnames="requests")
def _shown(sampler, requests):
  """Rewards and counts [SAMPLES, V]; without requests, one of every task."""

  def one(key):
    task_key, noise_key = jax.random.split(key)
    tasks = jnp.arange(V)
    if requests is not None:
      tasks = draw_tasks(task_key, MIX, requests=requests)
    count = count_tasks(tasks, num_tasks=V)
    return sampler(noise_key, MEAN, tasks, count), count

  return jax.vmap(one)(jax.random.split(jax.random.key(0), SAMPLES))


def _deviation(kind):
  """Of one request by task, for noise .2."""
  mean = np.asarray(MEAN)
  return {
    "bernoulli": np.sqrt(mean * (1 - mean)),
    "gaussian": np.full(V, 0.2),
    "heavy_tailed": np.full(V, 0.2),
    "task_dependent": np.array(
      [0.1, 0.1 * 4 ** (1 / 3), 0.1 * 4 ** (2 / 3), 0.4]
    ),
  }[kind]


def _check_moments(shown, deviation, kind, task):
  mean = float(MEAN[task])
  # Five standard errors.
  error = 5 * deviation / np.sqrt(len(shown))
  assert shown.mean() == pytest.approx(mean, abs=error)
  # The relative error of a deviation is sqrt((kurtosis - 1) / 4n) < 1 % but
  # for the t, whose kurtosis is infinite: there quartiles serve.
  if kind != "heavy_tailed":
    assert shown.std() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_a_request_has_the_mean_and_the_deviation(kind):
  sampler = noise.create(kind, noise=0.2, num_tasks=V)
  shown, count = jax.tree.map(np.asarray, _shown(sampler, None))
  assert (count == 1).all()
  for task, deviation in enumerate(_deviation(kind)):
    _check_moments(shown[:, task], deviation, kind, task)
  correlation = np.corrcoef(shown, rowvar=False) - np.eye(V)
  # Tasks are independent; standard error .007, more for heavy tails.
  assert np.abs(correlation).max() < 0.05
  if kind == "bernoulli":
    assert set(np.unique(shown)) == {0.0, 1.0}


@pytest.mark.parametrize("kind", noise.KINDS)
def test_the_mean_of_requests_has_a_smaller_deviation(kind):
  sampler = noise.create(kind, noise=0.2, num_tasks=V)
  shown, count = jax.tree.map(np.asarray, _shown(sampler, 6))
  assert (shown[count == 0] == 0).all() and (count[:, 3] == 0).all()
  for task, requests in ((2, 4), (1, 1), (2, 6)):
    chosen = shown[count[:, task] == requests, task]
    # At least 2,000 slots each: Binomial(6, .7) is 6 in 12 % of them.
    assert len(chosen) > 2000
    deviation = _deviation(kind)[task] / np.sqrt(requests)
    _check_moments(chosen, deviation, kind, task)


def test_heavy_tails_are_a_scaled_t_of_three_degrees():
  sampler = noise.create("heavy_tailed", noise=0.2, num_tasks=V)
  shown = np.asarray(_shown(sampler, None)[0])
  scaled = (shown - np.asarray(MEAN)).ravel() / 0.2 * np.sqrt(3)
  # Quantiles of t_3: .75 -> .7649, .95 -> 2.3534, .995 -> 5.8409. The relative
  # standard errors with 80,000 draws are below .9, .6 and 1.8 %.
  for level, quantile in ((0.75, 0.7649), (0.95, 2.3534), (0.995, 5.8409)):
    for sign in (-1, 1):
      found = np.quantile(sign * scaled, level)
      assert found == pytest.approx(quantile, rel=0.08)


def test_no_noise_shows_the_mean():
  for kind in ("gaussian", "heavy_tailed", "task_dependent"):
    sampler = noise.create(kind, noise=0.0, num_tasks=V)
    shown, count = _shown(sampler, 6)
    expected = np.where(count > 0, np.asarray(MEAN), 0.0)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("cauchy", 0.1), "'bernoulli'.*got noise_kind='cauchy'"),
    (("gaussian", -0.1), "noise=-0.1"),
    (("gaussian", float("nan")), "noise=nan"),
  ],
)
def test_bad_arguments_are_one_line_errors(arguments, message):
  kind, size = arguments
  with pytest.raises(ValueError, match=message) as error:
    noise.create(kind, noise=size, num_tasks=V)
  assert "\n" not in str(error.value)
