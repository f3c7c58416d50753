"""The account of what was lost to the plain average, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import bandits
from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.linear.concave_prior import NOISE_SLOTS, noise
from tanbr_jax.bandits.linear.conservative import (
  Caution,
  LinearParts,
  conservative,
)
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.regression import polynomial

E, V = 3, 2
MIX = np.float32([0.25, 0.75])
FEATURES = polynomial.fixed_features(E)
P = polynomial.num_features(FEATURES)
CONCAVITY, DEVIATION = 2.0, 0.3


def _given(key):
  return jnp.zeros((V, P), jnp.float32)


def _estimate(key, state, task_mix):
  return lambda x: (
    jnp.dot(task_mix @ state, polynomial.apply_features(FEATURES, x)),
    jnp.float32(0),
  )


def _take(key, state, task_mix, weights, feedback):
  """The coefficients are what the usage says, from now on."""
  return feedback.usage[:V, None] * jnp.ones((1, P), jnp.float32)


def _deviation(state, sums):
  return DEVIATION * jnp.sqrt(jnp.sum(sums**2, axis=(1, 2)))


def _model(allowance, caution):
  linear = LinearParts(
    FEATURES,
    Partial(lambda mix: mix),
    Partial(lambda state: state),
    Partial(_deviation),
  )
  model = RewardModel(Partial(_given), Partial(_estimate), Partial(_take))
  numbers = Caution(CONCAVITY, 1.0, allowance, caution)
  return conservative(model, linear, numbers, num_tasks=V)


def _phi(x):
  basis = polynomial.tangent_basis(E)
  rows, columns = np.triu_indices(E - 1)
  u = (np.asarray(x, np.float64) - 1 / E) @ basis
  return np.concatenate([[1.0], u, u[rows] * u[columns]])


def _wanted(slots, proposed, noise, allowance, caution):
  """What is played, from all slots (points, coefficients after them, seen)."""
  centre = np.full(E, 1 / E)
  # `_take` learns from every slot, the account from those that show something.
  coefficients = np.float64(slots[-1][1]) if slots else np.zeros(V)
  seen = [slot for slot in slots if slot[2]]
  ages = 0.999 ** np.arange(len(seen))[::-1]
  sums = np.zeros((V, P))
  distance = 0.0
  for age, (point, _, _) in zip(ages, seen, strict=True):
    sums += age * np.outer(MIX, _phi(point) - _phi(centre))
    distance += age * np.sum((point - centre) ** 2)
  if len(seen) <= NOISE_SLOTS:
    return centre
  fall, spread = -CONCAVITY * noise, max(1, 1.5 * noise)
  for scale in (1, 0.5, 0.25, 0.125):
    x = centre + scale * (proposed - centre)
    total = sums + np.outer(MIX, _phi(x) - _phi(centre))
    gain = coefficients @ total.sum(1)
    gain += fall * (distance + np.sum((x - centre) ** 2))
    gain -= caution * DEVIATION * np.sqrt(np.sum(total**2))
    if gain + allowance * spread * (ages.sum() + 1) / E >= 0:
      return x
  return centre


@pytest.mark.parametrize("numbers", [(0.05, 0.0), (0.3, 0.5)])
def test_what_is_played_against_a_sum_over_all_slots(numbers):
  rng = np.random.default_rng(0)
  model = _model(*numbers)
  state = model.init(None)
  step = jax.jit(lambda *a: model.update(None, *a))
  restrain = jax.jit(model.restrain)
  slots, lengths = [], []
  for t in range(60):
    proposed = rng.dirichlet(np.ones(E)).astype(np.float32)
    played = restrain(state, MIX, proposed)
    size = float(noise(state.model.model))
    wanted = _wanted(slots, proposed.astype(np.float64), size, *numbers)
    np.testing.assert_allclose(played, wanted, atol=1e-6)
    lengths.append(np.linalg.norm(wanted - 1 / E))
    told = rng.normal(0, 0.3, V).astype(np.float32)
    reward = rng.normal(0, 0.1, V).astype(np.float32)
    count = np.full(V, int(t % 5 > 0), np.int32)
    feedback = Feedback(reward, count, usage=np.append(told, 0))
    state = step(state, MIX, played, feedback)
    slots.append((np.asarray(played, np.float64), told, t % 5 > 0))
  # Some proposals were played and some were not.
  assert 0 < np.mean(np.array(lengths[10:]) > 0) < 1


def test_without_a_limit_a_proposal_is_played_to_the_bit():
  model = _model(np.inf, 1.0)
  proposed = np.random.default_rng(1).dirichlet(np.ones(E)).astype(np.float32)
  state = model.init(None)
  centre = np.full(E, 1 / E, np.float32)
  np.testing.assert_array_equal(model.restrain(state, MIX, proposed), centre)
  state = state._replace(num_slots=jnp.float32(NOISE_SLOTS))
  np.testing.assert_array_equal(model.restrain(state, MIX, proposed), proposed)


@pytest.mark.parametrize("name", ["multitask_ts", "tanbr", "lin_ucb", "lin_ts"])
@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan")])
def test_a_bad_allowance_is_named(name, value):
  with pytest.raises(ValueError, match=f"allowance .*got allowance={value}"):
    bandits.REGISTRY[name](num_experts=3, num_tasks=2, allowance=value)
