"""The linear bandits refuse what they cannot play; see test_linear_model."""

import functools

import jax
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

  # E (E + 1) / 2 up to 16 experts, then E and 64 Fourier features.
  assert (num_features(16), num_features(17)) == (136, 81)
  assert num_features(17, features="quadratic") == 153
  assert num_features(192, features="linear") == 192
  # P = 18528: 2 V (P^2 + P) numbers, the weights played and three scalars are
  # 4 (16 * 18528 * 18529 + 192 + 3) = 21,971.5e6 bytes.
  with pytest.raises(ValueError, match="21,972 MB.*1,000 MB.*'fourier'") as e:
    make(num_experts=192, features="quadratic")
  assert "num_experts=192, num_tasks=8" in str(e.value)
