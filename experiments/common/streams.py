"""Bandits and synthetic streams as a config describes them."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.common import launch
from tanbr_jax import bandits, monitor
from tanbr_jax.environments import mixes, synthetic


def make_bandit(
  config: ml_collections.ConfigDict, method: str, **overrides: Any
) -> bandits.Bandit:
  """A method of `config.methods`, or a name of the registry."""
  return construct(
    method,
    {**config.methods.get(method, {}), **overrides},
    num_experts=config.num_experts,
    num_tasks=config.num_tasks,
  )


def construct(
  method: str, options: Mapping[str, Any], *, num_experts: int, num_tasks: int
) -> bandits.Bandit:
  """Makes a bandit of the registry.

  Args:
    method: its name, unless `options` has another under "bandit".
    options: of its constructor.
    num_experts: E.
    num_tasks: V.

  Raises:
    ValueError: the bandit or an option is not known.
  """
  options = dict(options)
  name = options.pop("bandit", method)
  if name not in bandits.REGISTRY:
    known = launch.suggest(name, bandits.REGISTRY)
    raise ValueError(f"unknown bandit {name!r} of method {method!r}{known}")
  try:
    return bandits.REGISTRY[name](
      num_experts=num_experts, num_tasks=num_tasks, **options
    )
  except TypeError as error:
    raise ValueError(f"method {method!r}: {error}") from error


def make_environment(
  config: ml_collections.ConfigDict, family: str, mix: str
) -> Any:
  """A family under a mix; with counted requests the mix is estimated."""
  estimator = None
  if config.requests:
    estimator = monitor.exponential_moving_average(
      num_tasks=config.num_tasks, decay=config.monitor_decay
    )
  return synthetic.synthetic(
    family,
    num_experts=config.num_experts,
    num_tasks=config.num_tasks,
    task_mix=mixes.create(
      mix,
      num_tasks=config.num_tasks,
      options=config.mix_options.get(mix, {}),
    ),
    noise=config.noise,
    noise_kind=config.get("noise_kind", "gaussian"),
    reward_drift=config.get("reward_drift", 0.0),
    monitor=estimator,
    requests=config.requests or None,
    family_options=config.get("family_options", {}).get(family, {}),
  )
