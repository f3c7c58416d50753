import inspect

import pytest

from tanbr_jax.bandits import REGISTRY
from tanbr_jax.bandits.registry import CATALOGUE, NEEDS


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_registered_bandit_has_an_entry(name):
  entry = CATALOGUE[name]
  assert set(entry.needs) <= set(NEEDS)
  assert len(set(entry.needs)) == len(entry.needs)
  # A paper has a year; what has none is a control or ours.
  is_paper = not entry.source.startswith(("control", "ours"))
  assert (entry.year is not None) == is_paper


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_horizon_is_an_option_of_the_constructor(name):
  option = inspect.signature(REGISTRY[name]).parameters.get("horizon")
  # A default of 0 means that none is needed.
  assert ("horizon" in CATALOGUE[name].needs) == bool(option and option.default)
