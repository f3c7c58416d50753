"""The linear bandits refuse what they cannot play; see test_linear_model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits


@pytest.mark.parametrize("name", ["lin_ucb", "lin_ts"])
@pytest.mark.parametrize(
  "options, words",
  [
    ({"features": "cubic"}, "cubic"),
    ({"exploration": float("nan")}, "exploration=nan"),
    ({"regularisation": 0.0}, "0.0"),
    ({"constant_scale": -1.0}, "constant_scale=-1.0"),
    ({"num_candidates": -1}, "num_candidates=-1"),
  ],
)
def test_bad_input(name, options, words):
  with pytest.raises(ValueError, match=words):
    getattr(bandits, name)(num_experts=3, num_tasks=2, **options)


@pytest.mark.parametrize("name", ["lin_ucb", "lin_ts"])
def test_features_follow_the_experts_and_a_huge_state_is_refused(name):
  make = functools.partial(getattr(bandits, name), num_tasks=8)

  def num_features(num_experts, **options):
    bandit = make(num_experts=num_experts, **options)
    state = jax.eval_shape(bandit.init, jax.random.key(0))
    # Only the tasks' matrices [V, P, P] have three axes.
    return max(x.shape[-1] for x in jax.tree.leaves(state) if x.ndim == 3)

  # E (E + 1) / 2 up to 16 experts, then E and 64 Fourier features; and the sum
  # of squares.
  assert (num_features(16), num_features(17)) == (137, 82)
  assert num_features(17, features="quadratic") == 154
  assert num_features(192, features="linear") == 193
  # P = 18529: 2 V (P^2 + P) numbers and the account's V P are
  # 4 (16 * 18529 * 18530 + 8 * 18529) = 21,974.5e6 bytes, and a kB more.
  with pytest.raises(ValueError, match="21,975 MB.*1,000 MB.*'fourier'") as e:
    make(num_experts=192, features="quadratic")
  assert "num_experts=192, num_tasks=8" in str(e.value)


@pytest.mark.parametrize(("num_experts", "regularisation"), [(4, 1), (32, 4)])
def test_regularisation_grows_with_the_experts(num_experts, regularisation):
  bandit = bandits.lin_ucb(
    num_experts=num_experts, num_tasks=2, features="linear"
  )
  state = bandit.init(jax.random.key(0))
  context = bandits.Context(jnp.full(2, 0.5))
  played = bandit.select(jax.random.key(1), state, context)
  # The first slot is at the centre, where only the constant feature is not 0:
  # .2 * 2 deviations of .02 sqrt(sum psi^2 / lambda), lambda in thousandths.
  expected = 0.2 * 2 * 0.02 * np.sqrt(2 * 0.5**2 / (1e-3 * regularisation))
  np.testing.assert_allclose(
    played.aux["exploration_bonus"], expected, rtol=1e-5
  )
