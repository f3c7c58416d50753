"""The linear bandits refuse what they cannot play; see test_linear_model."""

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
