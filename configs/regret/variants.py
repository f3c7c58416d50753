"""Ablations: configs in which one option of one method takes several values."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from configs.regret import curves

REFERENCE = "as it is"


def of_method(
  bandit: str,
  variants: Mapping[str, Mapping[str, Any]],
  *,
  reference: str,
) -> ml_collections.ConfigDict:
  """Variants of one method, on three families under a drifting mix.

  Args:
    bandit: a name of the registry.
    variants: name -> options that it overrides, or another "bandit" and its
      options; a name holds no dot and no comma.
    reference: the variant that ratios divide by.
  """
  config = curves.get_config()
  config.num_rounds = 2000
  config.mixes = "drift"
  config.methods = ml_collections.ConfigDict(
    {name: {"bandit": bandit, **options} for name, options in variants.items()}
  )
  config.bandits = ",".join(variants)
  config.baseline = reference
  config.figures = "ablation"
  # Those that differ in a number alone are one program.
  config.together = True
  return config


def of_options(
  bandit: str, options: Mapping[str, Sequence[Any]]
) -> ml_collections.ConfigDict:
  """The method as it is, and with one option at a time of other values."""
  variants = {REFERENCE: {}}
  for option, values in options.items():
    variants |= {name(option, value): {option: value} for value in values}
  return of_method(bandit, variants, reference=REFERENCE)


def name(option: str, value: Any) -> str:
  """`rho=3e-01` or `cells=box`: a config's fields cannot hold a dot."""
  shown = f"{value:.0e}" if isinstance(value, float) else value
  return f"{option}={shown}"
