"""Bandits and synthetic streams as a config describes them."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from experiments.common import launch
from tanbr_jax import bandits, monitor
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_name
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  Decay,
  NonNegative,
  Range,
  Whole,
)
from tanbr_jax.environments import Environment, mixes, synthetic

Options = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BanditSettings(ranges.Checked):
  """Sizes and options of methods; see configs/regret/quick.py."""

  num_experts: AtLeastTwo
  num_tasks: Count
  methods: Options = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    """Raises a ValueError if a size or the name of a method is not allowed."""
    super().__post_init__()
    for name in self.methods:
      check_name("method", name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticSettings(BanditSettings):
  """Synthetic streams and the methods on them; see configs/regret/quick.py."""

  noise: NonNegative
  requests: Whole
  monitor_decay: Decay
  mix_options: Options
  noise_kind: str = "gaussian"
  reward_drift: Annotated[float, Range(0, 0.5, "[]")] = 0.0
  gradient_noise: NonNegative | None = None
  gradient_every: Count = 1
  family_options: Options = dataclasses.field(default_factory=dict)


def make_bandit(
  settings: BanditSettings, method: str, **overrides: Any
) -> bandits.Bandit:
  """A method of `settings.methods`, or a name of the registry."""
  return construct(
    method,
    {**settings.methods.get(method, {}), **overrides},
    num_experts=settings.num_experts,
    num_tasks=settings.num_tasks,
  )


def construct(
  method: str, options: Mapping[str, Any], *, num_experts: int, num_tasks: int
) -> bandits.Bandit:
  """Makes a bandit of the registry.

  Args:
    method: its name, unless `options` has another under "bandit".
    options: of its constructor; and "delay", so many slots later it learns
      from a slot.
    num_experts: E.
    num_tasks: V.

  Raises:
    ValueError: the bandit or an option is not known.
  """
  options = dict(options)
  name = options.pop("bandit", method)
  delay = options.pop("delay", None)
  if name not in bandits.REGISTRY:
    known = launch.suggest(name, bandits.REGISTRY)
    raise ValueError(f"unknown bandit {name!r} of method {method!r}{known}")
  try:
    found = bandits.REGISTRY[name](
      num_experts=num_experts, num_tasks=num_tasks, **options
    )
  except TypeError as error:
    raise ValueError(f"method {method!r}: {error}") from error
  if delay is None:
    return found
  return bandits.delayed(found, delay=delay, num_tasks=num_tasks)


def make_environment(
  settings: SyntheticSettings, family: str, mix: str
) -> Environment:
  """A family under a mix; with counted requests the mix is estimated."""
  estimator = None
  if settings.requests:
    estimator = monitor.exponential_moving_average(
      num_tasks=settings.num_tasks, decay=settings.monitor_decay
    )
  return synthetic.synthetic(
    family,
    num_experts=settings.num_experts,
    num_tasks=settings.num_tasks,
    task_mix=mixes.create(
      mix,
      num_tasks=settings.num_tasks,
      options=settings.mix_options.get(mix, {}),
    ),
    noise=settings.noise,
    noise_kind=settings.noise_kind,
    reward_drift=settings.reward_drift,
    monitor=estimator,
    requests=settings.requests or None,
    gradient_noise=settings.gradient_noise,
    gradient_every=settings.gradient_every,
    family_options=settings.family_options.get(family, {}),
  )
