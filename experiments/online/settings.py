"""The config of the main job as records, whose values are checked."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from experiments.common import launch, records
from experiments.online import model_source
from experiments.online.model_source import ModelSettings, ModelSource
from tanbr_jax import bandits, monitor
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_name
from tanbr_jax.checks.ranges import Chance, Count, Decay, Whole
from tanbr_jax.environments import mixes, rewards, slot_signals
from tanbr_jax.environments.mixes import MixProcess
from tanbr_jax.online import signals
from tanbr_jax.training.pretraining import PretrainConfig

# Methods that are made of the model's own data; the others learn from nothing.
OF_MODEL = ("best_static", "follow_task_mix", "oracle", "routed")
# Of these the ones that a model without a router cannot make.
OF_ROUTER = ("follow_task_mix", "routed")
# The judge is the routed model itself.
REWARDS = (*rewards.NAMED, "judge")
MONITORS = ("adaptive_average", "moving_average", "count_min_sketch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OracleSettings(ranges.Checked):
  """Sizes of the oracle's search and of the estimate of its error.

  Attributes:
    seed: of both.
    steps: of each ascent.
    search_windows: windows of text that an ascent sees.
    windows: of each task, on which candidates are selected.
    error_mixes: drawn mixes of the estimate.
    error_starts: ascents of each of them.
    error_steps: of each of these ascents.
    climb_rounds: of the search without derivatives.
  """

  seed: Whole
  steps: Count
  search_windows: Count
  windows: Count
  error_mixes: Count
  error_starts: Count
  error_steps: Count
  climb_rounds: Whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamSettings(ranges.Checked):
  """Requests, their mix and its monitor; see configs/online/quick.py."""

  requests: Count
  gradient_requests: Whole | None
  signal: str
  merges: Count
  spread: Chance
  reward: str
  paying_tasks: str
  mix: str
  mix_options: Mapping[str, Mapping[str, Any]]
  monitor: str
  monitor_decay: Decay
  monitor_window: Count

  def __post_init__(self) -> None:
    """Raises a ValueError if a number is out of range or a name unknown."""
    super().__post_init__()
    if self.reward not in REWARDS:
      raise ValueError(
        f"reward must be one of {list(REWARDS)}, got {self.reward!r}"
      )
    for name, known in (("mix", self.mix_options), ("monitor", MONITORS)):
      if getattr(self, name) not in known:
        raise ValueError(
          f"{name} must be one of {sorted(known)}, got {getattr(self, name)!r}"
        )

  @property
  def num_gradient_requests(self) -> int:
    """Requests of a slot that give the gradient."""
    if self.gradient_requests is None:
      return self.requests
    return self.gradient_requests

  def task_values(self, task_names: Sequence[str]) -> list[float] | None:
    """1 for each task that pays and 0 for the others; None where all pay.

    Raises:
      ValueError: a name is not one of the tasks'.
    """
    if not self.paying_tasks:
      return None
    paying = launch.names(self.paying_tasks, known=task_names, kind="task")
    return [float(name in paying) for name in task_names]

  def check_needs(self, needs: bandits.Needs, *, method: str) -> None:
    """Raises a ValueError if the stream lacks what a method needs."""
    given = ["usage"] + ["gradient"] * (self.num_gradient_requests > 0)
    signals.check_needs(needs, given, name=method)

  def make_mix(self, num_tasks: int) -> MixProcess:
    """The process of task mixes; its options are checked here."""
    options = self.mix_options[self.mix]
    return mixes.create(self.mix, num_tasks=num_tasks, options=options)

  def make_monitor(self, num_tasks: int) -> monitor.Monitor:
    """The estimator of the mix; its options are checked here."""
    if self.monitor == "adaptive_average":
      return monitor.adaptive_moving_average(num_tasks=num_tasks)
    if self.monitor == "moving_average":
      return monitor.exponential_moving_average(
        num_tasks=num_tasks, decay=self.monitor_decay
      )
    return monitor.count_min_sketch(
      num_tasks=num_tasks, window=self.monitor_window
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineSettings(ranges.Checked):
  """All that the main job reads of its config; see configs/online/quick.py.

  Attributes:
    source: where the model comes from: `pretrain`, unless a checkpoint is
      named.
  """

  source: ModelSource
  pretrain: PretrainConfig
  oracle: OracleSettings
  stream: StreamSettings
  run: records.RunSettings
  bandits: list[str]
  methods: Mapping[str, Mapping[str, Any]]
  data_path: str | None
  cache_dir: str | None
  latency_repeats: Count

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    for name in self.methods:
      check_name("method", name)
    slot_signals.check(
      signal=self.stream.signal,
      gradient_requests=self.stream.num_gradient_requests,
      requests=self.stream.requests,
      num_experts=self.source.num_experts,
      merges=self.stream.merges,
    )
    if self.stream.signal == "agreement" and not self.source.has_router:
      raise ValueError(
        "signal='agreement' is with the routed model, and fine-tunes have no "
        "router"
      )
    if self.stream.reward == "judge" and not self.source.has_router:
      raise ValueError(
        "reward='judge' is of the routed model, and fine-tunes have no router"
      )
    if self.stream.reward in rewards.OF_BYTES and not isinstance(
      self.source, model_source.OfBytes
    ):
      raise ValueError(
        f"reward={self.stream.reward!r} is of bytes, and a checkpoint reads "
        "other tokens"
      )
    if ignored := sorted(set(self.methods) & set(OF_MODEL)):
      raise ValueError(f"methods made of the model take no options: {ignored}")


def read(config: ml_collections.ConfigDict) -> OnlineSettings:
  """The config as records.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  known = {*bandits.REGISTRY, *OF_MODEL, *config.methods}
  pretrain = records.read_section(
    PretrainConfig, config, "pretrain", seed=config.model_seed
  )
  model = records.read_section(ModelSettings, config, "model")
  source = model_source.OfBytes(pretrain)
  if model.path:
    source = dataclasses.replace(
      model_source.open_checkpoint(model), merges_copies=True
    )
  return records.read(
    OnlineSettings,
    config,
    source=source,
    pretrain=pretrain,
    oracle=records.read_section(OracleSettings, config, "oracle"),
    stream=records.read(StreamSettings, config),
    run=records.read(records.RunSettings, config),
    bandits=launch.names(config.bandits, known=known, kind="bandit"),
    data_path=config.data.path or None,
    cache_dir=config.cache_dir or None,
  )
