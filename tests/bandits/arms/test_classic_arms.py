"""UCB1, epsilon-greedy and Thompson sampling against slow float64 rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unwrapped import unwrapped

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback
from tanbr_jax.bandits.arms import classic_arms

E, V, T = 3, 2, 60
SIZES = {"num_experts": E, "num_tasks": V}
MEANS = np.array([[1.0, -1], [0.2, 0.3], [-0.5, 0.9], [0.4, 0.2]])


@pytest.fixture(scope="module")
def stream():
  rng = np.random.default_rng(1)
  mixes = rng.dirichlet(np.ones(V), T).astype(np.float32)
  noise = rng.normal(0, 0.3, (T, V))
  counts = rng.integers(0, 3, (T, V)).astype(np.int32)
  return mixes, noise, counts


def play(bandit, stream):
  """Plays the stream; returns a row (arm, aux, state before it) a round."""
  select, update = jax.jit(bandit.select), jax.jit(bandit.update)
  state, rows = bandit.init(jax.random.key(0)), []
  for t, (mix, noise, count) in enumerate(zip(*stream, strict=True)):
    key, context = jax.random.key(t), Context(jnp.asarray(mix))
    decision = select(key, state, context)
    arm = int(decision.aux["arm"])
    rows.append((arm, decision.aux, state))
    reward = jnp.asarray(MEANS[arm] + noise, jnp.float32)
    feedback = Feedback(reward, jnp.asarray(count))
    state = update(key, state, context, decision, feedback)
  return rows


class SlowArms:
  """Sums in float64, one arm and column at a time."""

  def __init__(self, context):
    self.per_task = context == "per_task"
    width = V if self.per_task else 1
    self.count, self.total = np.zeros((4, width)), np.zeros((4, width))
    self.visits, self.seen = np.zeros(4), []

  def mix(self, mix):
    return mix.astype(float) if self.per_task else np.ones(1)

  def learn(self, arm, mix, reward, count):
    if not self.per_task:
      shares = mix * (count > 0)
      if not shares.sum():
        return
      reward = np.array([shares @ reward / shares.sum()])
      count = np.ones(1)
    self.visits[arm] += count.any()
    self.count[arm] += count
    self.total[arm] += count * reward
    self.seen.extend(reward[count > 0])

  def means(self):
    pooled = self.total.sum(0) / np.maximum(self.count.sum(0), 1)
    known = self.total / np.maximum(self.count, 1)
    return np.where(self.count > 0, known, pooled)


@pytest.mark.parametrize("context", ["per_task", "slot"])
def test_ucb1_plays_the_largest_bound(stream, context):
  bandit = bandits.ucb1(**SIZES, context=context, exploration=0.5)
  slow = SlowArms(context)
  rows = play(bandit, stream)
  for (arm, aux, _), mix, noise, count in zip(rows, *stream, strict=True):
    psi, rounds = slow.mix(mix), slow.visits.sum()
    width = max(slow.seen) - min(slow.seen) if slow.seen else 0.0
    form = (psi**2 / np.maximum(slow.count, 1)).sum(1)
    bonus = 0.5 * width * np.sqrt(2 * np.log(max(rounds, 1)) * form)
    score = np.where(slow.visits == 0, np.inf, slow.means() @ psi + bonus)
    assert arm == np.argmax(score)
    np.testing.assert_allclose(
      aux["exploration_bonus"], bonus[arm], rtol=1e-4, atol=1e-6
    )
    slow.learn(arm, mix, MEANS[arm] + noise, count)
  assert slow.visits.min() >= 1


def test_greedy_plays_the_best_mean_and_explores_as_often_as_it_says(stream):
  rows = play(bandits.epsilon_greedy(**SIZES, epsilon=0.0), stream)
  slow = SlowArms("per_task")
  for (arm, _, _), mix, noise, count in zip(rows, *stream, strict=True):
    mean = slow.means() @ slow.mix(mix)
    assert arm == np.argmax(np.where(slow.visits == 0, np.inf, mean))
    slow.learn(arm, mix, MEANS[arm] + noise, count)
  bandit = unwrapped(
    bandits.epsilon_greedy(**SIZES, epsilon=0.8, decay_rounds=30.0)
  )
  rows = play(bandit, stream)
  state = rows[-1][2]
  rounds = int(jnp.sum(state.visits))
  assert rounds > 30
  epsilon = 0.8 * 30 / rounds
  context = Context(jnp.asarray(stream[0][-1]))
  draw = jax.jit(jax.vmap(lambda k: bandit.select(k, state, context).aux))
  aux = draw(jax.random.split(jax.random.key(3), 4000))
  np.testing.assert_allclose(aux["epsilon"], epsilon, rtol=1e-5)
  shares = np.bincount(np.asarray(aux["arm"]), minlength=4) / 4000
  wanted = np.full(4, epsilon / 4)
  wanted[np.argmax(shares)] += 1 - epsilon
  # 5 standard errors of a share of 4,000 draws, at most .5 / sqrt(4000).
  np.testing.assert_allclose(shares, wanted, atol=5 * 0.5 / 4000**0.5)


def test_thompson_has_the_conjugate_posterior_and_draws_from_it(stream):
  bandit = unwrapped(bandits.thompson(**SIZES, prior_scale=2.0))
  state = play(bandit, stream)[-1][2]
  observations = [[[] for _ in range(V)] for _ in range(4)]
  slow = SlowArms("per_task")
  for (arm, _, _), mix, noise, count in list(
    zip(play(bandit, stream), *stream, strict=True)
  )[:-1]:
    reward = MEANS[arm] + noise
    slow.learn(arm, mix, reward, count)
    for v in np.flatnonzero(count):
      observations[arm][v].append((reward[v], count[v]))
  spread = np.std(slow.seen)
  squares = sum(
    c * (r - slow.means()[n, v]) ** 2
    for n in range(4)
    for v in range(V)
    for r, c in observations[n][v]
  )
  freedom = sum(max(len(cell) - 1, 0) for arm in observations for cell in arm)
  noise = (squares + spread**2) / (freedom + 1)
  np.testing.assert_allclose(
    classic_arms.noise_variance(state), noise, rtol=1e-4
  )
  pooled = slow.total.sum(0) / slow.count.sum(0)
  mean, variance = np.zeros((4, V)), np.zeros((4, V))
  for n in range(4):
    for v in range(V):
      precision, moment = 1 / (2 * spread) ** 2, pooled[v] / (2 * spread) ** 2
      for r, c in observations[n][v]:
        precision, moment = precision + c / noise, moment + c * r / noise
      mean[n, v], variance[n, v] = moment / precision, 1 / precision
  got_mean, got_variance = classic_arms.arm_posterior(state, 2.0)
  np.testing.assert_allclose(got_mean, mean, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(got_variance, variance, rtol=1e-4)
  check_shares(bandit, state, mean, variance)


def check_shares(bandit, state, mean, variance):
  """How often an arm is played = how often its float64 draw is largest."""
  mix = np.array([0.6, 0.4])
  context = Context(jnp.asarray(mix, jnp.float32))
  draw = jax.jit(jax.vmap(lambda k: bandit.select(k, state, context).aux))
  arms = draw(jax.random.split(jax.random.key(5), 4000))["arm"]
  rng = np.random.default_rng(0)
  draws = rng.normal(mean, np.sqrt(variance), (40_000, 4, V)) @ mix
  wanted = np.bincount(draws.argmax(1), minlength=4) / 40_000
  shares = np.bincount(np.asarray(arms), minlength=4) / 4000
  # 5 standard errors of both samples' shares.
  np.testing.assert_allclose(shares, wanted, atol=5 * 0.5 * (1.1 / 4000) ** 0.5)


@pytest.mark.parametrize(
  "name, options, words",
  [
    ("ucb1", {"exploration": -1.0}, "exploration=-1"),
    ("epsilon_greedy", {"epsilon": 1.5}, "epsilon=1.5"),
    ("epsilon_greedy", {"decay_rounds": 0.0}, "decay_rounds=0"),
    ("thompson", {"prior_scale": 0.0}, "prior_scale=0"),
    ("thompson", {"exploration": np.nan}, "exploration=nan"),
    ("ucb1", {"arms": [[2.0, -1.0, 0.0]]}, "sum to 1"),
  ],
)
def test_bad_input(name, options, words):
  with pytest.raises(ValueError, match=words):
    bandits.REGISTRY[name](**SIZES, **options)
