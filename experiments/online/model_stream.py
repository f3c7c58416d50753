"""A pre-trained model, its oracle and its stream, as a config has them."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import data, models, monitor
from tanbr_jax.environments import mixes, moe_slots
from tanbr_jax.environments.base import Environment
from tanbr_jax.environments.mixes import MixProcess
from tanbr_jax.environments.oracle import error as oracle_error
from tanbr_jax.environments.oracle import table as oracle
from tanbr_jax.environments.oracle import text_parts
from tanbr_jax.online import chunk_store
from tanbr_jax.simplex.points import dirichlet_half
from tanbr_jax.storage import atomic
from tanbr_jax.training import pretraining


class ModelStream(NamedTuple):
  """What every method is served from.

  Attributes:
    model: the model with experts.
    params: its parameters.
    table: the oracle's.
    search_text: text that weights are searched on.
    select_windows: [V, n, S + 1] uint8, text that they are selected on.
    usage: [V, E] how much the router sends each task to each expert.
    merged: serves the merged model and shows an estimate of the mix.
    routed: serves the model of experts whatever is played.
    informed: serves the merged model and shows the true mix, for the oracle.
    input_ids: [B, S] int32, requests of a slot, for timing.
    figures: flat numbers on how the stream was prepared.
  """

  model: models.ByteLM
  params: models.Params
  table: oracle.OracleTable
  search_text: data.TaskText
  select_windows: jax.Array
  usage: jax.Array
  merged: Environment
  routed: Environment
  informed: Environment
  input_ids: jax.Array
  figures: dict[str, float]


def pretrain_config(
  config: ml_collections.ConfigDict,
) -> pretraining.PretrainConfig:
  """The pre-training that the config asks for."""
  return pretraining.PretrainConfig(**config.pretrain, seed=config.model_seed)


def make_mix(config: ml_collections.ConfigDict, num_tasks: int) -> MixProcess:
  """The process of task mixes that the config asks for."""
  if config.mix not in config.mix_options:
    known = sorted(config.mix_options)
    raise ValueError(f"mix must be one of {known}, got {config.mix!r}")
  return mixes.create(
    config.mix, num_tasks=num_tasks, options=config.mix_options[config.mix]
  )


def make_monitor(
  config: ml_collections.ConfigDict, num_tasks: int
) -> monitor.Monitor:
  """The monitor that the config asks for."""
  if config.monitor == "moving_average":
    return monitor.exponential_moving_average(
      num_tasks=num_tasks, decay=config.monitor_decay
    )
  if config.monitor == "count_min_sketch":
    return monitor.count_min_sketch(
      num_tasks=num_tasks, window=config.monitor_window
    )
  raise ValueError(
    "monitor must be 'moving_average' or 'count_min_sketch', got "
    f"{config.monitor!r}"
  )


def prepare(
  config: ml_collections.ConfigDict,
  corpus: data.Corpus,
  *,
  cache_dir: Path,
  progress: bool,
) -> ModelStream:
  """Pre-trains and finds the oracle, or reads both from the cache.

  Validation text is dealt into four parts: the oracle's ascent, the choice
  among its candidates, and both halves of the estimate of its error. The
  stream is drawn from test text.
  """
  length = config.pretrain.context + 1
  # All text first, because text that is too short is an error, and training
  # takes minutes.
  parts = [
    data.from_arrays(part, min_length=length)
    for part in text_parts.split_text(corpus.splits["validation"], 4)
  ]
  data.from_arrays(corpus.splits["test"], min_length=length)
  trained = pretraining.pretrain(
    pretrain_config(config), corpus, cache_dir=cache_dir, progress=progress
  )
  table, error = _oracle(config, trained, parts, cache_dir)
  windows = data.evaluation_windows(parts[1], config.oracle.windows, length)
  flat = windows.reshape(-1, length)[:, :-1].astype(jnp.int32)
  figures = {"oracle_search_error": error}
  if trained.seconds is not None:
    figures["pretrain_seconds"] = trained.seconds
  return ModelStream(
    trained.model,
    trained.params,
    table,
    parts[0],
    windows,
    models.task_usage(trained.model, trained.params, windows),
    *_environments(config, corpus, trained, table),
    input_ids=flat[:: max(1, flat.shape[0] // config.requests)][
      : config.requests
    ],
    figures=figures,
  )


def best_weights(
  config: ml_collections.ConfigDict, stream: ModelStream, mix: jax.Array
) -> jax.Array:
  """The best weights [E] for one mix [V], by a search of its own.

  Ascent from the table's choice and from uniform weights, on four times the
  windows of the table's ascents; the best of starts and end is selected on
  other text.
  """
  settings = config.oracle
  num_experts = stream.usage.shape[1]
  uniform = jnp.full(num_experts, 1 / num_experts)
  starts = jnp.stack([uniform, oracle.choose(stream.table, mix)[0]])
  found = oracle.search(
    jax.random.key(settings.seed),
    model=stream.model,
    params=stream.params,
    text=stream.search_text,
    mixes=mix[None],
    starts=starts[None],
    steps=settings.error_steps,
    num_windows=4 * settings.search_windows,
    learning_rate=0.3,
    context=config.pretrain.context,
  )
  candidates = oracle.measure(
    stream.model,
    stream.params,
    jnp.concatenate([starts, found]),
    windows=stream.select_windows,
    reward=config.reward,
  )
  return oracle.choose(candidates, mix)[0]


def policy(table: oracle.OracleTable) -> Partial:
  """Mix [V] -> weights [E], the table's choice."""
  return Partial(_choose_weights, table)


def _choose_weights(table: oracle.OracleTable, mix: jax.Array) -> jax.Array:
  return oracle.choose(table, mix)[0]


def _environments(
  config: ml_collections.ConfigDict,
  corpus: data.Corpus,
  trained: pretraining.Pretrained,
  table: oracle.OracleTable,
) -> list[Environment]:
  """Merged, routed and informed; their requests are the same."""
  num_tasks = len(corpus.task_names)
  text = data.from_arrays(
    corpus.splits["test"], min_length=config.pretrain.context + 1
  )
  estimator = make_monitor(config, num_tasks)
  return [
    moe_slots.moe_slots(
      trained.model,
      trained.params,
      text,
      task_mix=make_mix(config, num_tasks),
      optimal_table=table,
      requests_per_slot=config.requests,
      monitor=shown,
      serve=serve,
      reward=config.reward,
      # The oracle's own run is the yardstick, see `regret.against`.
      paired=False,
    )
    for serve, shown in (
      ("merged", estimator),
      ("routed", estimator),
      ("merged", None),
    )
  ]


def _oracle(
  config: ml_collections.ConfigDict,
  trained: pretraining.Pretrained,
  parts: list[data.TaskText],
  cache_dir: Path,
) -> tuple[oracle.OracleTable, float]:
  """The table and its error, kept by model, text and settings."""
  settings = np.frombuffer(
    repr(sorted(config.oracle.items()) + [config.reward]).encode(), np.uint8
  )
  key = chunk_store.fingerprint(trained.params, parts, settings)
  path = cache_dir / f"oracle-{key}.npz"
  if not path.exists():
    print("searching the best weights of every mix (once, then cached)")
    table, error = _search_oracle(config, trained, parts)
    arrays = {"weights": table.weights, "rewards": table.rewards}
    atomic.write_arrays(path, {**arrays, "error": np.float64(error)})
  with np.load(path) as found:
    table = oracle.OracleTable(
      jnp.asarray(found["weights"]), jnp.asarray(found["rewards"])
    )
    return table, float(found["error"])


def _search_oracle(
  config: ml_collections.ConfigDict,
  trained: pretraining.Pretrained,
  parts: list[data.TaskText],
) -> tuple[oracle.OracleTable, float]:
  settings = config.oracle
  table_key, mix_key, error_key = jax.random.split(
    jax.random.key(settings.seed), 3
  )
  length = config.pretrain.context + 1
  table = oracle.oracle_table(
    table_key,
    trained.model,
    trained.params,
    search_text=parts[0],
    select_windows=data.evaluation_windows(parts[1], settings.windows, length),
    guesses=trained.task_weights,
    steps=settings.steps,
    search_windows=settings.search_windows,
    reward=config.reward,
  )
  num_tasks = table.rewards.shape[1]
  error = oracle_error.search_error(
    error_key,
    trained.model,
    trained.params,
    table,
    mixes=dirichlet_half(mix_key, (settings.error_mixes, num_tasks)),
    search_text=parts[2],
    score_windows=data.evaluation_windows(parts[3], settings.windows, length),
    num_starts=settings.error_starts,
    steps=settings.error_steps,
    search_windows=settings.search_windows,
    reward=config.reward,
  )
  return table, error.mean
