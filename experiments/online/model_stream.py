"""A model, its oracle and its stream, as settings have them."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.online.model_source import VALIDATION_PARTS, Made
from experiments.online.settings import OnlineSettings
from tanbr_jax import data, models
from tanbr_jax.environments import moe_slots, rewards
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


class Ingredients(NamedTuple):
  """A stream without its model, made before it so that mistakes show early.

  Attributes:
    validation: text to search, to select, and two parts to estimate on.
    test: text that is served.
    task_mix: the process of task mixes.
    monitor: estimates the mix.
    task_values: [V] factors of the tasks' rewards, None for 1.
  """

  validation: list[data.TaskText]
  test: data.TaskText
  task_mix: MixProcess
  monitor: Monitor
  task_values: jax.Array | None


class ModelStream(NamedTuple):
  """A model, its oracle, and the environments that serve it.

  Attributes:
    model: the model with experts.
    params: its parameters.
    table: the oracle's.
    reward: of a request.
    task_values: [V] factors of the tasks' rewards, None for 1.
    search_text: text that weights are searched on.
    select_windows: [V, n, S + 1] tokens, text that they are selected on.
    usage: [V, E] how much the router sends each task to each expert; None
      without a router.
    merged: signals that a method needs -> an environment which serves the
      merged model, shows an estimate of the mix and gives these signals.
    routed: serves the model of experts whatever is played; None without a
      router.
    informed: serves the merged model and shows the true mix, for the oracle.
    input_ids: [B, S] int32, requests of a slot, for timing.
    figures: flat numbers on how the stream was prepared.
  """

  model: models.Model
  params: models.Params
  table: oracle.OracleTable
  reward: Partial
  task_values: jax.Array | None
  search_text: data.TaskText
  select_windows: jax.Array
  usage: jax.Array | None
  merged: Callable[[Collection[str]], Environment]
  routed: Environment | None
  informed: Environment
  input_ids: jax.Array
  figures: dict[str, float]

  @property
  def sizes(self) -> tuple[int, int]:
    """V and E."""
    return self.table.rewards.shape[1], self.table.weights.shape[1]


def collect(settings: OnlineSettings, corpus: data.Corpus) -> Ingredients:
  """Makes all that needs no model.

  Validation text is dealt into four parts: the oracle's ascent, the choice
  among its candidates, and both halves of the estimate of its error.

  Raises:
    ValueError: text that is too short; a table or an option that does not fit.
  """
  num_tasks = len(corpus.task_names)
  settings.source.check_tasks(num_tasks)
  values = settings.stream.task_values(corpus.task_names)
  make = functools.partial(
    data.from_arrays,
    min_length=settings.source.context + 1,
    stride=corpus.stride,
  )
  parts = text_parts.split_text(
    corpus.splits["validation"], VALIDATION_PARTS, stride=corpus.stride
  )
  return Ingredients(
    [make(part) for part in parts],
    make(corpus.splits["test"]),
    settings.stream.make_mix(num_tasks),
    settings.stream.make_monitor(num_tasks),
    None if values is None else jnp.asarray(values, jnp.float32),
  )


def prepare(
  settings: OnlineSettings,
  corpus: data.Corpus,
  ingredients: Ingredients,
  *,
  cache_dir: Path,
  progress: bool,
) -> ModelStream:
  """Makes the model and finds the oracle, or reads them from the cache.

  Args:
    settings: of the run.
    corpus: its "train" split is what a model of bytes is trained on.
    ingredients: of `collect`, from the same settings and corpus.
    cache_dir: where both are kept.
    progress: whether bars are drawn.
  """
  made = settings.source.make(corpus, cache_dir=cache_dir, progress=progress)
  parts = ingredients.validation
  table, error = _oracle(settings, made, parts, cache_dir)
  length, requests = settings.source.context + 1, settings.stream.requests
  windows = data.evaluation_windows(parts[1], settings.oracle.windows, length)
  flat = data.read_windows(windows.reshape(-1, length)).inputs
  usage = None
  if settings.source.has_router:
    usage = models.task_usage(made.model, made.params, windows)
  return ModelStream(
    made.model,
    made.params,
    table,
    make_reward(settings, made),
    ingredients.task_values,
    parts[0],
    windows,
    usage,
    *_environments(settings, ingredients, made, table),
    input_ids=flat[:: max(1, flat.shape[0] // requests)][:requests],
    figures={"oracle_search_error": error, **made.figures},
  )


def make_reward(settings: OnlineSettings, made: Made) -> Partial:
  """The reward of a request; "judge" is the routed model of the run."""
  if settings.stream.reward == "judge":
    return rewards.judged_by(made.model, made.params)
  return rewards.as_reward(settings.stream.reward)


def best_weights(
  settings: OnlineSettings, stream: ModelStream, mix: jax.Array
) -> jax.Array:
  """The best weights [E] for one mix [V], by a search of its own.

  Ascent from the table's choice and from uniform weights, on four times the
  windows of the table's ascents; the best of starts and end is selected on
  other text.
  """
  num_experts = stream.table.weights.shape[1]
  uniform = jnp.full(num_experts, 1 / num_experts)
  mix = moe_slots.valued(mix, stream.task_values)
  mix = mix / jnp.sum(mix)
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
    context=settings.source.context,
  )
  candidates = oracle.score_candidates(
    stream.model,
    stream.params,
    jnp.concatenate([starts, found]),
    windows=stream.select_windows,
    reward=stream.reward,
  )
  return oracle.choose(candidates, mix)[0]


def policy(stream: ModelStream) -> Partial:
  """Mix [V] -> weights [E], the table's choice."""
  return Partial(_choose_weights, stream.table, stream.task_values)


def _choose_weights(
  table: oracle.OracleTable, task_values: jax.Array | None, mix: jax.Array
) -> jax.Array:
  return oracle.choose(table, moe_slots.valued(mix, task_values))[0]


def _environments(
  settings: OnlineSettings,
  ingredients: Ingredients,
  made: Made,
  table: oracle.OracleTable,
) -> tuple[
  Callable[[Collection[str]], Environment], Environment | None, Environment
]:
  """Merged, routed and informed; their requests are the same."""
  stream = settings.stream
  make = functools.partial(
    moe_slots.moe_slots,
    made.model,
    made.params,
    ingredients.test,
    task_mix=ingredients.task_mix,
    optimal_table=table,
    requests_per_slot=stream.requests,
    context=settings.source.context,
    reward=make_reward(settings, made),
    task_values=ingredients.task_values,
    # The oracle's own run is the yardstick, see `regret.against`.
    paired=False,
  )

  def merged(needs: Collection[str]) -> Environment:
    count = stream.num_gradient_requests if "gradient" in needs else 0
    return make(
      monitor=ingredients.monitor,
      gradient_requests=count,
      signal=stream.signal,
      merges=stream.merges,
      spread=stream.spread,
      usage="usage" in needs,
    )

  routed = None
  if settings.source.has_router:
    routed = make(monitor=ingredients.monitor, serve="routed")
  return merged, routed, make()


def _oracle(
  settings: OnlineSettings,
  made: Made,
  parts: list[data.TaskText],
  cache_dir: Path,
) -> tuple[oracle.OracleTable, float]:
  """The table and its error, kept by model, text and settings."""
  about = dataclasses.asdict(settings.oracle) | numerics()
  text = repr([*sorted(about.items()), settings.stream.reward])
  key = chunk_store.fingerprint(
    made.params, parts, np.frombuffer(text.encode(), np.uint8)
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
    table, error = _search_oracle(settings, made, parts)
    arrays = {"weights": table.weights, "rewards": table.rewards}
    arrays["error"] = np.float64(error)
    atomic.write_arrays(path, arrays, header={"key": key})
    return read()

  return cache.fetch(path, read=read, make=make)


def _search_oracle(
  settings: OnlineSettings,
  made: Made,
  parts: list[data.TaskText],
) -> tuple[oracle.OracleTable, float]:
  """Searches the table, then estimates its error on other text."""
  sizes, reward = settings.oracle, make_reward(settings, made)
  table_key, mix_key, error_key = jax.random.split(
    jax.random.key(sizes.seed), 3
  )
  length = settings.source.context + 1
  guesses = made.task_weights
  if guesses is None:
    seen = data.evaluation_windows(parts[0], sizes.windows, length)
    guesses = _guess_weights(made, seen, reward=reward)
  table = oracle.oracle_table(
    table_key,
    made.model,
    made.params,
    search_text=parts[0],
    select_windows=data.evaluation_windows(parts[1], sizes.windows, length),
    guesses=guesses,
    steps=sizes.steps,
    search_windows=sizes.search_windows,
    climb_rounds=sizes.climb_rounds,
    reward=reward,
  )
  num_tasks = table.rewards.shape[1]
  error = oracle_error.search_error(
    error_key,
    made.model,
    made.params,
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


def _guess_weights(
  made: Made, windows: jax.Array, *, reward: Partial
) -> jax.Array:
  """Weights [V, E] that may suit each task, where training tells none.

  The router's usage; of fine-tunes the one that is best on the task.
  """
  if not isinstance(made.model, models.FineTunes):
    usage = models.task_usage(made.model, made.params, windows)
    return usage / jnp.sum(usage, axis=1, keepdims=True)
  vertices = jnp.eye(made.model.config.num_experts, dtype=jnp.float32)
  scored = oracle.score_candidates(
    made.model, made.params, vertices, windows=windows, reward=reward
  )
  return vertices[jnp.argmax(scored.rewards, axis=0)]
