"""The account of what was lost to the plain average, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import bandits
from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.linear.conservative import LinearParts, with_account
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.regression import polynomial

E, V = 3, 2
MIX = np.float32([0.25, 0.75])
FEATURES = polynomial.fixed_features(E)
P = polynomial.num_features(FEATURES)
FALL, DEVIATION = -0.7, 0.3


def _given(key):
  return jnp.zeros((V, P), jnp.float32)


def _take(key, state, task_mix, weights, feedback):
  """The coefficients are what the feedback says, from now on."""
  return feedback.task_reward[:, None] * jnp.ones((1, P), jnp.float32)


def _deviation(state, sums):
  return DEVIATION * jnp.sqrt(jnp.sum(sums**2, axis=(1, 2)))


def _model(**numbers):
  linear = LinearParts(
    FEATURES,
    Partial(lambda state: state),
    Partial(lambda mix: mix),
    Partial(_deviation),
    Partial(lambda state: jnp.float32(FALL)),
  )
  model = RewardModel(Partial(_given), None, Partial(_take))
  given = {"allowance": 0.5, "least_scale": 0.2, "caution": 0.0, "patience": 0}
  return with_account(model, linear, **{**given, **numbers})


def _phi(x):
  basis = polynomial.tangent_basis(E)
  rows, columns = np.triu_indices(E - 1)
  u = (np.asarray(x, np.float64) - 1 / E) @ basis
  return np.concatenate([[1.0], u, u[rows] * u[columns]])


def _wanted(slots, proposed, numbers):
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
  num_slots = ages.sum()
  if num_slots < numbers["patience"]:
    return centre
  for scale in (1, 0.5, 0.25, 0.125):
    x = centre + scale * (proposed - centre)
    total = sums + np.outer(MIX, _phi(x) - _phi(centre))
    gain = coefficients @ total.sum(1)
    gain += FALL * (distance + np.sum((x - centre) ** 2))
    gain -= numbers["caution"] * DEVIATION * np.sqrt(np.sum(total**2))
    allowed = numbers["allowance"] * (num_slots + 1) / E
    if scale >= numbers["least_scale"] and gain + allowed >= 0:
      return x
  return centre


@pytest.mark.parametrize(
  "numbers",
  [
    {"allowance": 0.05, "least_scale": 0.2, "caution": 0.0, "patience": 0},
    {"allowance": 0.2, "least_scale": 0.1, "caution": 0.5, "patience": 3},
    {"allowance": 0.2, "least_scale": 1.0, "caution": 0.0, "patience": 0},
  ],
)
def test_what_is_played_against_a_sum_over_all_slots(numbers):
  rng = np.random.default_rng(0)
  model = _model(**numbers)
  state = model.init(None)
  step = jax.jit(lambda *a: model.update(None, *a))
  restrain = jax.jit(model.restrain)
  slots, scales = [], []
  for t in range(40):
    proposed = rng.dirichlet(np.ones(E)).astype(np.float32)
    played = restrain(state, MIX, proposed)
    wanted = _wanted(slots, proposed.astype(np.float64), numbers)
    np.testing.assert_allclose(played, wanted, atol=1e-6)
    scales.append(np.linalg.norm(wanted - 1 / E))
    told = rng.normal(0, 0.3, V).astype(np.float32)
    count = np.full(V, int(t % 5 > 0), np.int32)
    state = step(state, MIX, played, Feedback(told, count))
    slots.append((np.asarray(played, np.float64), told, t % 5 > 0))
  # Some proposals were played and some were not.
  assert 0 < np.mean(np.array(scales) > 0) < 1


def test_without_a_limit_a_proposal_is_played_to_the_bit():
  model = _model(allowance=jnp.inf)
  proposed = np.random.default_rng(1).dirichlet(np.ones(E)).astype(np.float32)
  played = model.restrain(model.init(None), MIX, proposed)
  np.testing.assert_array_equal(played, proposed)


@pytest.mark.parametrize("name", ["multitask_ts", "tanbr", "lin_ucb", "lin_ts"])
@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan")])
def test_a_bad_allowance_is_named(name, value):
  with pytest.raises(ValueError, match=f"allowance .*got allowance={value}"):
    bandits.REGISTRY[name](num_experts=3, num_tasks=2, allowance=value)
