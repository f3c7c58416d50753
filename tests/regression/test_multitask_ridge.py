"""The multi-task posterior against dense float64 algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.regression import multitask_ridge

P, V = 5, 3
GROUPS = np.array([0, 1, 1, 2, 2])


def draw_history(num_slots, seed=0):
  rng = np.random.default_rng(seed)
  features = rng.normal(0, 1, (num_slots, P))
  features[:, 0] = 1
  common = rng.normal(0, 1, P)
  tasks = rng.normal(0, 0.3, (V, P)) * (GROUPS != 2)
  count = rng.integers(0, 4, (num_slots, V))
  noise = 0.2 / np.sqrt(np.maximum(count, 1)) * rng.normal(size=count.shape)
  reward = features @ (common + tasks).T + noise
  return tuple(np.asarray(a, np.float32) for a in (features, reward, count))


@jax.jit
def learn(prior, history, state=None):
  """The posterior after a history; equal lengths share a program."""
  if state is None:
    state = multitask_ridge.init(prior, V)

  def step(state, row):
    return multitask_ridge.update(prior, state, *row), None

  return jax.lax.scan(step, state, history)[0]


class Reference:
  """One dense Gaussian over all parts; blocks off the diagonal are dropped."""

  def __init__(self, task, common, strength, forgetting):
    self.first = np.array([task] * V + [common], float)
    self.strength, self.forgetting = strength, forgetting
    self.precision = np.tile(self.first[:, None], (1, P))
    self.cov = [np.diag(1 / row) for row in self.precision]
    self.mean = np.zeros((V + 1, P))
    self.noise, self.seen, self.slots = 1e-3, 0, 0

  def update(self, features, reward, count):
    tasks = np.flatnonzero(count)
    if not tasks.size:
      return
    target = self.target(self.slots % P)
    self.cov = [block / self.forgetting for block in self.cov]
    self.precision = self.precision * self.forgetting
    joint = np.zeros(((V + 1) * P,) * 2)
    for k, block in enumerate(self.cov):
      joint[k * P : (k + 1) * P, k * P : (k + 1) * P] = block
    design = np.zeros((tasks.size, (V + 1) * P))
    for row, v in enumerate(tasks):
      design[row, v * P : (v + 1) * P] = features
      design[row, V * P :] = features
    inner = design @ joint @ design.T + np.diag(1 / count[tasks])
    error = reward[tasks] - design @ self.mean.ravel()
    gain = joint @ design.T @ np.linalg.inv(inner)
    mean = (self.mean.ravel() + gain @ error).reshape(V + 1, P)
    joint = joint - gain @ design @ joint
    i = self.slots % P
    for k in range(V + 1):
      z = np.linalg.inv(joint[k * P : (k + 1) * P, k * P : (k + 1) * P])
      change = max(target[k] - self.precision[k, i], -self.precision[k, i] / 2)
      natural = z @ mean[k]
      z[i, i] += change
      self.precision[k, i] += change
      self.cov[k] = np.linalg.inv(z)
      self.mean[k] = self.cov[k] @ natural
    # The least squares problem of the split, solved by its normal equation.
    shift = np.zeros(P)
    for j in range(P):
      own, shared = self.precision[[0, V], j]
      shift[j] = (own * self.mean[:V, j].sum() - shared * self.mean[V, j]) / (
        shared + V * own
      )
    self.mean[:V] -= shift
    self.mean[V] += shift
    innovation = error @ np.linalg.solve(inner, error) / tasks.size
    self.seen = self.forgetting * self.seen + tasks.size
    self.noise += tasks.size / self.seen * (innovation - self.noise)
    self.slots += 1

  def target(self, i):
    """MacKay's fixed point for the group of feature i, from the state now."""
    group = GROUPS == GROUPS[i]
    left = np.array(
      [
        1 - row * np.diag(c)
        for row, c in zip(self.precision, self.cov, strict=True)
      ]
    )
    targets = np.zeros(V + 1)
    for parts in (slice(0, V), slice(V, V + 1)):
      squares = (self.mean[parts][:, group] ** 2).sum() / max(self.noise, 1e-20)
      guess = self.strength / self.first[parts][0]
      ratio = (squares + guess) / (left[parts][:, group].sum() + self.strength)
      targets[parts] = np.clip(1 / ratio, 1e-4, 1e3)
    return targets


@pytest.mark.parametrize("forgetting", [1.0, 0.97])
def test_equals_a_dense_filter_in_float64(forgetting):
  history = draw_history(60)
  prior = multitask_ridge.make_prior(
    GROUPS, task_precision=0.1, common_precision=0.03, forgetting=forgetting
  )
  state = learn(prior, history)
  reference = Reference(0.1, 0.03, 2.0, forgetting)
  for row in zip(*(a.astype(float) for a in history), strict=True):
    reference.update(*row)
  # Float32 over 60 slots: 60 half units in the last place of the largest
  # covariance are 4e-6; the estimates of Lambda feed back into it.
  np.testing.assert_allclose(state.weights, reference.mean, atol=2e-4)
  cov = np.einsum("kqp,kqr->kpr", state.high, state.high)
  np.testing.assert_allclose(cov, reference.cov, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(state.noise, reference.noise, rtol=1e-4)
  np.testing.assert_allclose(
    state.precision, reference.precision[[0, V]], rtol=1e-3
  )
  assert int(state.num_slots) == reference.slots


def test_without_a_common_part_it_is_ridge_regression():
  features, reward, count = draw_history(60)
  prior = multitask_ridge.make_prior(
    GROUPS, task_precision=0.5, common_precision=np.inf, strength=np.inf
  )
  state = learn(prior, (features, reward, count))
  for v in range(V):
    x, w = features.astype(float), count[:, v].astype(float)
    z = 0.5 * np.eye(P) + (x * w[:, None]).T @ x
    coefficients = np.linalg.solve(z, (x * w[:, None]).T @ reward[:, v])
    np.testing.assert_allclose(state.weights[v], coefficients, atol=1e-4)
    variance = multitask_ridge.variance(
      state, jnp.asarray(features[0]), jnp.asarray(np.eye(V)[v], jnp.float32)
    )
    expected = float(state.noise) * x[0] @ np.linalg.solve(z, x[0])
    np.testing.assert_allclose(variance, expected, rtol=1e-4)


def test_draws_have_the_posteriors_mean_and_covariance():
  prior = multitask_ridge.make_prior(GROUPS)
  state = learn(prior, draw_history(60))
  mix = np.array([0.2, 0.5, 0.3], np.float32)
  keys = jax.random.split(jax.random.key(1), 20000)
  draws = jax.jit(
    jax.vmap(multitask_ridge.sample_deviation, in_axes=(0, None, None))
  )(keys, state, jnp.asarray(mix))
  cov = np.einsum("kqp,kqr->kpr", *(np.asarray(state.high, float),) * 2)
  exact = float(state.noise) * np.einsum(
    "k,kpr->pr", np.append(mix, 1) ** 2, cov
  )
  size = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
  # A covariance of 20,000 draws is off by about 1 / sqrt(20,000) = .7 %.
  np.testing.assert_allclose(np.cov(draws.T) / size, exact / size, atol=0.035)
  np.testing.assert_allclose(
    np.mean(draws, axis=0) / np.sqrt(np.diag(exact)), 0, atol=0.03
  )


def test_learns_which_features_tasks_share_and_which_they_need():
  prior = multitask_ridge.make_prior(GROUPS)
  state = learn(prior, draw_history(2000))
  noise = 0.2**2
  np.testing.assert_allclose(state.noise, noise, rtol=0.05)
  task, common = np.asarray(state.precision)
  # The tasks' own coefficients of group 2 are zero: of the six that are known
  # perfectly, and two pseudo-counts of 1 / .1, the fixed point makes
  # (6 + 2) / (2 / .1) = .4.
  np.testing.assert_allclose(task[GROUPS == 2], 0.4, rtol=0.05)
  # Of six draws with variance .09, 2.2 times the noise's, less each feature's
  # mean over the tasks: somewhat above 1 / 2.2 .. 1 / 10, by the same formula.
  assert 0.1 < task[1] < 0.35
  assert np.all(common < 0.05)


@pytest.mark.parametrize(
  "times", [10_000, pytest.param(100_000, marks=pytest.mark.slow)]
)
def test_keeps_its_digits_when_one_point_is_played_again_and_again(times):
  prior = multitask_ridge.make_prior(
    GROUPS, strength=np.inf, task_precision=0.1, common_precision=np.inf
  )
  features = jnp.asarray([1.0, 0.3, -0.2, 0.1, 0.05], jnp.float32)

  @jax.jit
  def play(state, key):
    def step(state, key):
      reward = 0.5 + 0.1 * jax.random.normal(key, (V,))
      ones = jnp.ones(V, jnp.float32)
      return multitask_ridge.update(
        prior, state, features, reward, ones
      ), reward

    return jax.lax.scan(step, state, jax.random.split(key, times))

  state, rewards = play(multitask_ridge.init(prior, V), jax.random.key(0))
  f = np.asarray(features, float)
  exact = f @ np.linalg.solve(0.1 * np.eye(P) + times * np.outer(f, f), f)
  form = float(jnp.sum((state.high[0] @ features) ** 2))
  # A plain float32 recursion is off by a tenth and more after 100,000 times
  # (see square_root).
  assert form == pytest.approx(exact, rel=2e-3)
  mean = np.asarray(state.weights) @ f
  average = np.asarray(rewards, float).mean(axis=0)
  np.testing.assert_allclose(mean[:V], average, atol=2e-4)


def test_rewards_that_are_all_alike_do_no_harm():
  prior = multitask_ridge.make_prior(GROUPS)
  features, reward, count = draw_history(20)
  state = learn(prior, (features, 0 * reward, 1 + count))
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
  np.testing.assert_array_equal(state.weights, 0)
  # And what comes later is learnt.
  later = (features, np.ones_like(reward), 1 + count)
  state = learn(prior, later, state)
  mix = jnp.full(V, 1 / V, jnp.float32)
  predicted = multitask_ridge.mean(state, mix) @ features.T
  # Half of the 40 slots said 0 and half 1: least squares would say .5. The
  # dropped covariances leave the posterior wider than the exact one, so that
  # what came later weighs more.
  assert 0.5 < np.mean(predicted) < 1.02


def test_a_slot_without_rewards_changes_nothing():
  prior = multitask_ridge.make_prior(GROUPS, forgetting=0.9)
  state = learn(prior, draw_history(60))
  zeros = jnp.zeros(V, jnp.float32)
  after = jax.jit(multitask_ridge.update)(
    prior, state, jnp.ones(P, jnp.float32), zeros, zeros
  )
  for old, new in zip(
    jax.tree.leaves(state), jax.tree.leaves(after), strict=True
  ):
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"task_precision": 0.0}, "task_precision=0.0"),
    ({"common_precision": -1.0}, "common_precision=-1.0"),
    ({"strength": 0.0}, "strength=0.0"),
    ({"forgetting": 1.5}, "forgetting=1.5"),
    ({"forgetting": 0.0}, "forgetting=0.0"),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(ValueError, match=words):
    multitask_ridge.make_prior(GROUPS, **options)


def test_values_of_the_mixture_against_dense_algebra():
  """Each value enters the joint Gaussian, whose other blocks are dropped."""
  rng = np.random.default_rng(5)
  prior = multitask_ridge.make_prior(GROUPS)
  state = learn(prior, draw_history(20))
  features, values = rng.normal(size=(4, P)), rng.normal(size=4)
  parts = np.array([0.2, 0.5, 0.3, 1.0])
  noise, scale = 0.3, float(state.noise)
  new, estimate = jax.jit(multitask_ridge.update_mixture)(
    state,
    jnp.asarray(features, jnp.float32),
    jnp.asarray(parts, jnp.float32),
    jnp.asarray(values, jnp.float32),
    jnp.float32(noise),
  )
  roots = np.asarray(state.high, float) + np.asarray(state.low, float)
  blocks = [root.T @ root for root in roots]
  mean = np.asarray(state.weights, float) + np.asarray(state.weights_low)
  squares = []
  for row, value in zip(features, values, strict=True):
    design = np.kron(parts, row)
    joint = np.zeros((4 * P, 4 * P))
    for k, block in enumerate(blocks):
      joint[k * P : (k + 1) * P, k * P : (k + 1) * P] = block
    spread = design @ joint @ design + noise / scale
    error = value - design @ mean.ravel()
    gain = joint @ design / spread
    mean = mean + (gain * error).reshape(4, P)
    joint -= np.outer(gain, design @ joint)
    blocks = [joint[k * P : (k + 1) * P, k * P : (k + 1) * P] for k in range(4)]
    squares.append(error**2 * noise / scale / spread)
  # Four float32 updates of a state of condition about 1e3.
  np.testing.assert_allclose(new.weights, mean, atol=1e-4)
  for root, block in zip(new.high, blocks, strict=True):
    np.testing.assert_allclose(root.T @ root, block, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(estimate, np.mean(squares), rtol=1e-3)
