"""Every registered bandit shows its hyper-parameters and documents them."""

import inspect
import re

import pytest

from tanbr_jax.bandits import REGISTRY

# Every constructor takes them; `tanbr_jax.bandits` says what they are.
SIZES = {"num_experts", "num_tasks"}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_argument_has_a_name_and_a_meaning(name):
  constructor = REGISTRY[name]
  parameters = inspect.signature(constructor).parameters.values()
  assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}
  documented = re.findall(r"^ +(\w+): \S", inspect.getdoc(constructor), re.M)
  for parameter in parameters:
    assert parameter.annotation is not inspect.Parameter.empty
    assert parameter.name in {*documented, *SIZES}


def test_nothing_but_the_sizes_must_be_given():
  for constructor in REGISTRY.values():
    needed = {
      parameter.name
      for parameter in inspect.signature(constructor).parameters.values()
      if parameter.default is inspect.Parameter.empty
    }
    assert needed <= SIZES
