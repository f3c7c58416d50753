import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_sliding_window as slots_of
from unwrapped import unwrapped

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback, forget
from tanbr_jax.regression import confidence, polynomial

E, V, T = slots_of.E, slots_of.V, slots_of.T
FACTOR, LAMBDA = 0.9, 0.5


def test_linear_model_against_weighted_least_squares():
  plain = unwrapped(
    bandits.lin_ucb(
      num_experts=E,
      num_tasks=V,
      features="linear",
      regularisation=LAMBDA,
      concavity=0.0,
      radial_scale=2.0,
    )
  )
  wrapped = bandits.discounted(plain, factor=FACTOR)
  slots = slots_of.history()
  states = jax.jit(slots_of.run)(wrapped, slots)
  # In a conservative model's state, that of earned exploration, of a prior.
  linear = states.model.model.model.model
  posterior = jax.tree.map(lambda x: x[-1], linear.posterior)
  _, decisions, feedback = slots
  features = polynomial.fixed_features(E, quadratic=False, radial=2.0)
  phi = np.array(
    [polynomial.apply_features(features, x) for x in decisions.merge_weights],
    np.float64,
  )
  age = FACTOR ** np.arange(T - 1, -1, -1)
  for v in range(V):
    share = age * np.asarray(feedback.task_count[:, v])
    # The prior has faded T times.
    gram = FACTOR**T * LAMBDA * np.eye(phi.shape[1])
    gram += phi.T @ (share[:, None] * phi)
    moment = phi.T @ (share * np.asarray(feedback.task_reward[:, v]))
    root = np.asarray(posterior.root.high[v] + posterior.root.low[v])
    # float32, and a Gram matrix of condition about 100.
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(gram), rtol=1e-4)
    np.testing.assert_allclose(
      posterior.weights[:, v], np.linalg.solve(gram, moment), atol=1e-4
    )


def test_ucb1_against_a_loop():
  """Discounted UCB on arms whose rewards change half way."""
  plain = bandits.ucb1(num_experts=E, num_tasks=1, exploration=0.3)
  wrapped = bandits.discounted(plain, factor=FACTOR)
  means = np.array([[0.9, 0.5, 0.1, 0.3], [0.1, 0.5, 0.9, 0.3]])
  table = np.repeat(means, 30, axis=0).astype(np.float32)
  context = Context(jnp.ones(1))

  def step(state, reward):
    decision = wrapped.select(jax.random.key(0), state, context)
    arm = decision.aux["arm"]
    feedback = Feedback(reward[arm][None], jnp.ones(1, jnp.int32))
    key = jax.random.key(0)
    return wrapped.update(key, state, context, decision, feedback), arm

  start = wrapped.init(jax.random.key(0))
  found = jax.jit(lambda: jax.lax.scan(step, start, jnp.asarray(table))[1])()
  counts, sums, seen, arms = np.zeros(4), np.zeros(4), [], []
  for t, reward in enumerate(table.astype(float)):
    arm = t
    if t >= 4:
      bonus = np.sqrt(2 * np.log(t) / np.maximum(counts, 1))
      width = max(seen) - min(seen)
      arm = int(np.argmax(sums / counts + 0.3 * width * bonus))
    counts, sums = FACTOR * counts, FACTOR * sums
    counts[arm], sums[arm] = counts[arm] + 1, sums[arm] + reward[arm]
    seen.append(reward[arm])
    arms.append(arm)
  np.testing.assert_array_equal(found, arms)
  # Arm 0 is the best one before the change, the worst one after it.
  assert np.mean(np.equal(arms[10:30], 0)) > 0.5
  assert np.mean(np.equal(arms[45:], 0)) < 0.3


def test_matrices_fade_by_the_factor():
  features = jnp.array([0.3, -0.2])
  for make in (confidence.full, confidence.diagonal):
    form = make(num_features=2)
    state = form.update(form.init(), features)
    before = form.quadratic_form(state, features)
    faded = form.quadratic_form(forget(state, jnp.float32(0.25)), features)
    np.testing.assert_allclose(faded, before / 0.25, rtol=1e-6)


def test_what_is_never_seen_stays_finite():
  state = confidence.full(num_features=2).init()
  fade = jax.jit(
    lambda state: jax.lax.scan(
      lambda s, _: (forget(s, jnp.float32(0.5)), None), state, length=1000
    )[0]
  )
  assert 1e3 <= fade(state).high.max() < 2e3


def test_exp3_without_age_is_exp3():
  plain = unwrapped(bandits.exp3(num_experts=E, num_tasks=V))
  state = plain.init(jax.random.key(0))._replace(
    log_weights=jnp.array([0.0, -1.0, -2.0, -4.0])
  )
  np.testing.assert_array_equal(forget(state, 1.0).log_weights, [0, -1, -2, -4])
  np.testing.assert_array_equal(
    forget(state, 0.5).log_weights, [0, -0.5, -1, -2]
  )


@pytest.mark.parametrize("factor", [0.0, 1.5, float("nan")])
def test_bad_factors(factor):
  bandit = bandits.ucb1(num_experts=E, num_tasks=V)
  with pytest.raises(ValueError, match=rf"in \(0, 1\], got factor={factor}"):
    bandits.discounted(bandit, factor=factor)


def test_a_state_without_a_rule_is_refused():
  bandit = bandits.neural_ucb(num_experts=E, num_tasks=V)
  with pytest.raises(ValueError, match="how to forget, got NeuralState"):
    bandits.discounted(bandit, factor=0.9)
