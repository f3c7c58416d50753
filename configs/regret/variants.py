"""Ablations: configs in which one option of one method takes several values."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from configs.regret import curves


def of_method(
  bandit: str,
  variants: Mapping[str, Mapping[str, Any]],
  *,
  reference: str,
  varied: str = "",
) -> ml_collections.ConfigDict:
  """Variants of one method, on three families under a drifting mix.

  Args:
    bandit: a name of the registry.
    variants: name -> options that it overrides, or another "bandit" and its
      options; a name holds no dot and no comma.
    reference: the variant that ratios divide by.
    varied: the option on the figure's axis; none for bars.
  """
  config = curves.get_config()
  config.mixes = "drift"
  config.methods = ml_collections.ConfigDict(
    {name: {"bandit": bandit, **options} for name, options in variants.items()}
  )
  config.bandits = ",".join(variants)
  config.baseline = reference
  config.varied = varied
  config.figures = "ablation"
  return config


def of_option(
  bandit: str, option: str, values: Sequence[Any], *, reference: Any
) -> ml_collections.ConfigDict:
  """One option with several values; `reference` is one of them."""
  return of_method(
    bandit,
    {name(option, value): {option: value} for value in values},
    reference=name(option, reference),
    varied=option,
  )


def name(option: str, value: Any) -> str:
  """`rho=3e-01` or `cells=box`: a config's fields cannot hold a dot."""
  shown = f"{value:.0e}" if isinstance(value, float) else value
  return f"{option}={shown}"
