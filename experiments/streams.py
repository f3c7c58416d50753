"""Bandits and synthetic streams as a config describes them."""

from typing import Any

import ml_collections

from tanbr_jax import bandits, monitor
from tanbr_jax.environments import synthetic, task_mix


def make_bandit(
  config: ml_collections.ConfigDict, method: str, **overrides: Any
) -> bandits.Bandit:
  """A method of `config.methods`, or a name of the registry."""
  options = {**config.methods.get(method, {}), **overrides}
  constructor = bandits.REGISTRY[options.pop("bandit", method)]
  return constructor(
    num_experts=config.num_experts, num_tasks=config.num_tasks, **options
  )


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
    task_mix=task_mix.create(
      mix, num_tasks=config.num_tasks, **config.mix_options[mix]
    ),
    noise=config.noise,
    monitor=estimator,
    requests=config.requests or None,
  )
