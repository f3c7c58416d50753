"""The Gaussian process against scikit-learn's, before and after it slides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.linear import gp_model

E, V, M, T = 4, 3, 20, 50
NUMBERS = gp_model.GpNumbers(
  exploration=1.7,
  prior_scale=1.5,
  noise=0.3,
  length_scale=0.6,
  mix_length_scale=0.8,
)


class ProductKernel(Kernel):
  """The same kernel on rows (weights, mix), for scikit-learn."""

  def __init__(self, mix_kernel="linear"):
    self.mix_kernel = mix_kernel

  def __call__(self, X, Y=None, eval_gradient=False):
    assert not eval_gradient
    Y = X if Y is None else Y

    def squares(one, other):
      return ((one[:, None] - other[None]) ** 2).sum(-1)

    near = np.exp(-squares(X[:, :E], Y[:, :E]) / (2 * 0.6**2))
    if self.mix_kernel == "linear":
      return 1.5**2 * near * (X[:, E:] @ Y[:, E:].T)
    mixes = np.exp(-squares(X[:, E:], Y[:, E:]) / (2 * 0.8**2))
    return 1.5**2 * near * mixes

  def diag(self, X):
    return np.diag(self(X))

  def is_stationary(self):
    return False


@pytest.fixture(scope="module")
def history():
  rng = np.random.default_rng(0)
  weights = rng.dirichlet(np.full(E, 0.5), T)
  weights[::4] = weights[0]
  mixes = rng.dirichlet(np.full(V, 0.5), T)
  rewards = rng.normal(3, 1, (T, V)) + weights[:, :V] * 4
  counts = rng.integers(0, 4, (T, V))
  counts[7] = 0
  return (
    weights.astype(np.float32),
    mixes.astype(np.float32),
    rewards.astype(np.float32),
    counts.astype(np.int32),
  )


def fit(model, history):
  """Returns the states after every slot."""

  def step(state, row):
    weights, mix, reward, count = row
    feedback = Feedback(reward, count)
    state = model.update(jax.random.key(0), state, mix, weights, feedback)
    return state, state

  start = model.init(jax.random.key(0))
  scan = jax.jit(lambda s, h: jax.lax.scan(step, s, h)[1])
  return scan(start, tuple(map(jnp.asarray, history)))


def reference(history, num_slots, mix_kernel, points):
  """Mean and deviation at the points by scikit-learn, in reward units."""
  rows, targets, noises, seen_rewards = [], [], [], []
  for weights, mix, reward, count in zip(
    *(part[:num_slots] for part in history), strict=True
  ):
    shares = np.where(count > 0, mix.astype(float), 0)
    if not shares.sum():
      continue
    shares /= shares.sum()
    rows.append(np.concatenate([weights, shares]))
    targets.append(shares @ reward)
    noises.append((shares**2 / np.maximum(count, 1)).sum())
    seen_rewards.extend(reward[count > 0])
  mean, spread = np.mean(seen_rewards), np.std(seen_rewards)
  alpha = 0.3**2 * np.array(noises[-M:]) + gp_model.JITTER * 1.5**2
  process = GaussianProcessRegressor(
    ProductKernel(mix_kernel), alpha=alpha, optimizer=None
  )
  process.fit(np.array(rows[-M:]), (np.array(targets[-M:]) - mean) / spread)
  got, deviation = process.predict(points, return_std=True)
  return mean + spread * got, spread * deviation


@pytest.mark.parametrize("mix_kernel", ["linear", "squared_exponential"])
def test_posterior_is_scikit_learns(history, mix_kernel):
  model = gp_model.gp_model(
    num_experts=E,
    num_tasks=V,
    capacity=M,
    numbers=NUMBERS,
    mix_kernel=mix_kernel,
  )
  states = fit(model, history)
  rng = np.random.default_rng(1)
  points = np.concatenate(
    [rng.dirichlet(np.ones(E), 6), rng.dirichlet(np.ones(V), 6)], axis=1
  )
  points[0, :E] = history[0][0]

  @jax.jit
  @jax.vmap
  def estimates(state):
    def one(point):
      estimate = model.estimate(jax.random.key(0), state, point[E:])
      return estimate(point[:E])

    return jax.vmap(one)(jnp.asarray(points, jnp.float32))

  # Slot 7 was not seen; the window is full after 21 slots.
  times = np.array([1, 7, 8, 20, 22, 49])
  means, bonuses = estimates(jax.tree.map(lambda x: x[times - 1], states))
  for i, num_slots in enumerate(times):
    mean, deviation = reference(history, num_slots, mix_kernel, points)
    # Float32 on a kernel matrix of condition number about 1e3.
    np.testing.assert_allclose(means[i], mean, rtol=1e-3)
    np.testing.assert_allclose(bonuses[i], 1.7 * deviation, rtol=1e-3)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"capacity": 1}, "capacity=1"),
    ({"num_experts": 1}, "num_experts=1"),
    ({"mix_kernel": "cubic"}, "cubic"),
    ({"numbers": NUMBERS._replace(noise=0.0)}, "noise=0"),
    ({"numbers": NUMBERS._replace(length_scale=np.inf)}, "length_scale=inf"),
  ],
)
def test_bad_input(options, words):
  arguments = {
    "num_experts": E,
    "num_tasks": V,
    "capacity": M,
    "numbers": NUMBERS,
  }
  with pytest.raises(ValueError, match=words):
    gp_model.gp_model(**(arguments | options))
