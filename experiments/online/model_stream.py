"""A pre-trained model, its oracle and its stream, as settings have them."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.online.settings import OnlineSettings, StreamSettings
from tanbr_jax import data, models
from tanbr_jax.environments import moe_slots
from tanbr_jax.environments.base import Environment
from tanbr_jax.environments.mixes import MixProcess
from tanbr_jax.environments.oracle import error as oracle_error
from tanbr_jax.environments.oracle import table as oracle
from tanbr_jax.environments.oracle import text_parts
from tanbr_jax.monitor import Monitor
from tanbr_jax.online import chunk_store
from tanbr_jax.simplex.points import dirichlet_half
from tanbr_jax.storage import atomic, cache
from tanbr_jax.storage.numerics import numerics
from tanbr_jax.training import pretraining


class Ingredients(NamedTuple):
  """A stream without its model, made before training so that mistakes show.

  Attributes:
    validation: text to search, to select, and two parts to estimate on.
    test: text that is served.
    task_mix: the process of task mixes.
    monitor: estimates the mix.
  """

  validation: list[data.TaskText]
  test: data.TaskText
  task_mix: MixProcess
  monitor: Monitor


class ModelStream(NamedTuple):
  """A model, its oracle, and the environments that serve it.

  Attributes:
    model: the model with experts.
    params: its parameters.
    table: the oracle's.
    search_text: text that weights are searched on.
    select_windows: [V, n, S + 1] tokens, text that they are selected on.
    usage: [V, E] how much the router sends each task to each expert.
    merged: signals that a method needs -> an environment which serves the
      merged model, shows an estimate of the mix and gives these signals.
    routed: serves the model of experts whatever is played.
    informed: serves the merged model and shows the true mix, for the oracle.
    input_ids: [B, S] int32, requests of a slot, for timing.
    figures: flat numbers on how the stream was prepared.
  """

  model: models.Model
  params: models.Params
  table: oracle.OracleTable
  search_text: data.TaskText
  select_windows: jax.Array
  usage: jax.Array
  merged: Callable[[Collection[str]], Environment]
  routed: Environment
  informed: Environment
  input_ids: jax.Array
  figures: dict[str, float]


def collect(settings: OnlineSettings, corpus: data.Corpus) -> Ingredients:
  """Makes all that needs no model.

  Validation text is dealt into four parts: the oracle's ascent, the choice
  among its candidates, and both halves of the estimate of its error.

  Raises:
    ValueError: text that is too short; a table or an option that does not fit.
  """
  num_tasks = len(corpus.task_names)
  settings.pretrain.check_tasks(num_tasks)
  length = settings.pretrain.context + 1
  return Ingredients(
    [
      data.from_arrays(part, min_length=length)
      for part in text_parts.split_text(corpus.splits["validation"], 4)
    ],
    data.from_arrays(corpus.splits["test"], min_length=length),
    settings.stream.make_mix(num_tasks),
    settings.stream.make_monitor(num_tasks),
  )


def prepare(
  settings: OnlineSettings,
  corpus: data.Corpus,
  ingredients: Ingredients,
  *,
  cache_dir: Path,
  progress: bool,
) -> ModelStream:
  """Pre-trains and finds the oracle, or reads both from the cache.

  Args:
    settings: of the run.
    corpus: its "train" split is trained on.
    ingredients: of `collect`, from the same settings and corpus.
    cache_dir: where both are kept.
    progress: whether bars are drawn.
  """
  trained = pretraining.pretrain(
    settings.pretrain, corpus, cache_dir=cache_dir, progress=progress
  )
  parts = ingredients.validation
  table, error = _oracle(settings, trained, parts, cache_dir)
  length, requests = settings.pretrain.context + 1, settings.stream.requests
  windows = data.evaluation_windows(parts[1], settings.oracle.windows, length)
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
    *_environments(settings.stream, ingredients, trained, table),
    input_ids=flat[:: max(1, flat.shape[0] // requests)][:requests],
    figures=figures,
  )


def best_weights(
  settings: OnlineSettings, stream: ModelStream, mix: jax.Array
) -> jax.Array:
  """The best weights [E] for one mix [V], by a search of its own.

  Ascent from the table's choice and from uniform weights, on four times the
  windows of the table's ascents; the best of starts and end is selected on
  other text.
  """
  num_experts = stream.usage.shape[1]
  uniform = jnp.full(num_experts, 1 / num_experts)
  starts = jnp.stack([uniform, oracle.choose(stream.table, mix)[0]])
  found = oracle.search(
    jax.random.key(settings.oracle.seed),
    model=stream.model,
    params=stream.params,
    text=stream.search_text,
    mixes=mix[None],
    starts=starts[None],
    steps=settings.oracle.error_steps,
    num_windows=4 * settings.oracle.search_windows,
    learning_rate=0.3,
    context=settings.pretrain.context,
  )
  candidates = oracle.score_candidates(
    stream.model,
    stream.params,
    jnp.concatenate([starts, found]),
    windows=stream.select_windows,
    reward=settings.stream.reward,
  )
  return oracle.choose(candidates, mix)[0]


def policy(table: oracle.OracleTable) -> Partial:
  """Mix [V] -> weights [E], the table's choice."""
  return Partial(_choose_weights, table)


def _choose_weights(table: oracle.OracleTable, mix: jax.Array) -> jax.Array:
  return oracle.choose(table, mix)[0]


def _environments(
  settings: StreamSettings,
  ingredients: Ingredients,
  trained: pretraining.Pretrained,
  table: oracle.OracleTable,
) -> tuple[Callable[[Collection[str]], Environment], Environment, Environment]:
  """Merged, routed and informed; their requests are the same."""
  make = functools.partial(
    moe_slots.moe_slots,
    trained.model,
    trained.params,
    ingredients.test,
    task_mix=ingredients.task_mix,
    optimal_table=table,
    requests_per_slot=settings.requests,
    reward=settings.reward,
    # The oracle's own run is the yardstick, see `regret.against`.
    paired=False,
  )

  def merged(needs: Collection[str]) -> Environment:
    count = settings.num_gradient_requests if "gradient" in needs else 0
    return make(
      monitor=ingredients.monitor,
      gradient_requests=count,
      signal=settings.signal,
      merges=settings.merges,
      spread=settings.spread,
      usage="usage" in needs,
    )

  return merged, make(monitor=ingredients.monitor, serve="routed"), make()


def _oracle(
  settings: OnlineSettings,
  trained: pretraining.Pretrained,
  parts: list[data.TaskText],
  cache_dir: Path,
) -> tuple[oracle.OracleTable, float]:
  """The table and its error, kept by model, text and settings."""
  values = sorted(dataclasses.asdict(settings.oracle).items())
  text = repr([*values, settings.stream.reward])
  about = dataclasses.asdict(settings.oracle) | numerics()
  text = repr([*sorted(about.items()), settings.stream.reward])
  key = chunk_store.fingerprint(
    trained.params, parts, np.frombuffer(text.encode(), np.uint8)
  )
  path = cache_dir / f"oracle-{key}.npz"

  def read() -> tuple[oracle.OracleTable, float]:
    arrays, header = atomic.read_arrays(path)
    if header.get("key") != key:
      raise ValueError(f"{path} is not the oracle of that name")
    table = oracle.OracleTable(
      jnp.asarray(arrays["weights"]), jnp.asarray(arrays["rewards"])
    )
    return table, float(arrays["error"])

  def make() -> tuple[oracle.OracleTable, float]:
    print("searching the best weights of every mix (once, then cached)")
    table, error = _search_oracle(settings, trained, parts)
    arrays = {"weights": table.weights, "rewards": table.rewards}
    arrays["error"] = np.float64(error)
    atomic.write_arrays(path, arrays, header={"key": key})
    return read()

  return cache.fetch(path, read=read, make=make)


def _search_oracle(
  settings: OnlineSettings,
  trained: pretraining.Pretrained,
  parts: list[data.TaskText],
) -> tuple[oracle.OracleTable, float]:
  """Searches the table, then estimates its error on other text."""
  sizes, reward = settings.oracle, settings.stream.reward
  table_key, mix_key, error_key = jax.random.split(
    jax.random.key(sizes.seed), 3
  )
  length = settings.pretrain.context + 1
  table = oracle.oracle_table(
    table_key,
    trained.model,
    trained.params,
    search_text=parts[0],
    select_windows=data.evaluation_windows(parts[1], sizes.windows, length),
    guesses=trained.task_weights,
    steps=sizes.steps,
    search_windows=sizes.search_windows,
    reward=reward,
  )
  num_tasks = table.rewards.shape[1]
  error = oracle_error.search_error(
    error_key,
    trained.model,
    trained.params,
    table,
    mixes=dirichlet_half(mix_key, (sizes.error_mixes, num_tasks)),
    search_text=parts[2],
    score_windows=data.evaluation_windows(parts[3], sizes.windows, length),
    num_starts=sizes.error_starts,
    steps=sizes.error_steps,
    search_windows=sizes.search_windows,
    reward=reward,
  )
  return table, error.mean
