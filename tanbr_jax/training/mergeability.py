"""Measures how much the choice of merge weights matters for a model.

Merge weights are chosen on one text and scored on another. Letters: V tasks,
E experts, X mixes, n windows a task, S tokens of context.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import models
from tanbr_jax.simplex.search import maximise_on_simplex


class Mergeability(NamedTuple):
  """Scores of every choice of weights, each [X] over the mixes of text.

  Attributes:
    mixes: [X, V] the mixes: each task alone, then pairs of tasks.
    uniform: `Score` of equal weights.
    static: of the weights that are best for all tasks together.
    best: of each mix's own best weights.
    table: of the weights that the training's table gives, None without one.
    routed: of the routed model.
    static_weights: [E].
    best_weights: [X, E].
  """

  mixes: jax.Array
  uniform: models.Score
  static: models.Score
  best: models.Score
  table: models.Score | None
  routed: models.Score
  static_weights: jax.Array
  best_weights: jax.Array


def concentrated_mixes(num_tasks: int, *, larger: float = 0.75) -> jax.Array:
  """Returns [2V, V]: each task alone, then each with its neighbour."""
  alone = jnp.eye(num_tasks, dtype=jnp.float32)
  if num_tasks == 1:
    return alone
  pairs = larger * alone + (1 - larger) * jnp.roll(alone, 1, axis=1)
  return jnp.concatenate([alone, pairs])


def score_choices(
  model: models.Model,
  params: models.Params,
  *,
  choose_on: jax.Array,
  score_on: jax.Array,
  task_weights: jax.Array | None = None,
  steps: int = 30,
  learning_rate: float = 0.3,
) -> Mergeability:
  """Searches the best weights of every concentrated mix and scores them.

  Args:
    model: a model with experts.
    params: its parameters.
    choose_on: [V, n, S + 1] tokens, windows that the weights are chosen on.
    score_on: [V, n', S + 1] tokens, other windows, which they are scored on.
    task_weights: [V, E] the training's table: more starts of the search, and
      a line of its own.
    steps: of the search, from each start.
    learning_rate: of the search.

  Returns:
    Scores by mix.
  """
  num_tasks, num_experts = choose_on.shape[0], model.config.num_experts
  mixes = concentrated_mixes(num_tasks)
  find = jax.jit(
    functools.partial(
      _search, model=model, steps=steps, learning_rate=learning_rate
    )
  )
  # The searches start from uniform weights and from a guess for each mix.
  uniform = jnp.full(num_experts, 1 / num_experts, jnp.float32)
  guesses = jnp.broadcast_to(uniform, (mixes.shape[0], num_experts))
  if task_weights is not None:
    guesses = jnp.matmul(mixes, task_weights, precision="float32")
  # First one static choice for all tasks, from which the mixes start too.
  even = jnp.full(num_tasks, 1 / num_tasks, jnp.float32)
  middle = jnp.mean(guesses, axis=0)
  static = find(params, choose_on, even, jnp.stack([uniform, middle]))
  # Then the best weights of every mix.
  best = []
  for mix, guess in zip(mixes, guesses, strict=True):
    # Only the tasks of the mix are read: at most two of them.
    tasks = jnp.argsort(-mix)[:2]
    starts = jnp.stack([static, guess])
    best.append(find(params, choose_on[tasks], mix[tasks], starts))
  best = jnp.stack(best)
  # All choices are scored in one pass, on text that no search has read.
  score = jax.jit(functools.partial(_score_merged, model=model))
  rows = jnp.concatenate([uniform[None], static[None], best, guesses])
  scores = jax.tree.map(np.array, score(params, score_on, rows))
  # The routed model takes no weights and is scored as it is.
  routed = jax.jit(functools.partial(_score_routed, model=model))
  # Rows of `scores`: uniform, static, the best of each mix, its guess.
  num_mixes = mixes.shape[0]

  def of_mixes(first: int, *, is_own: bool) -> models.Score:
    return models.Score(
      *(_weigh(x, first, mixes, is_own=is_own) for x in scores)
    )

  return Mergeability(
    mixes=mixes,
    uniform=of_mixes(0, is_own=False),
    static=of_mixes(1, is_own=False),
    best=of_mixes(2, is_own=True),
    table=None
    if task_weights is None
    else of_mixes(2 + num_mixes, is_own=True),
    routed=models.Score(
      *(np.array(mixes) @ np.array(x) for x in routed(params, score_on))
    ),
    static_weights=static,
    best_weights=best,
  )


def summarise(found: Mergeability) -> dict[str, float]:
  """Flat figures such as `best/mix_accuracy` and `routed/task_loss`.

  `task` means over tasks alone, `mix` over pairs too. `gap` is what the best
  weights of each mix win over the best static ones, and `routed_lead` what the
  routed model wins over those best weights.
  """
  num_tasks = found.mixes.shape[1]
  summary = {}
  for name in ("uniform", "static", "best", "table", "routed"):
    score = getattr(found, name)
    for measure_name in models.Score._fields if score is not None else ():
      values = getattr(score, measure_name)
      key = f"{name}/{{}}_{measure_name}"
      summary[key.format("task")] = float(np.mean(values[:num_tasks]))
      summary[key.format("mix")] = float(np.mean(values))
  for name, one, other in (
    ("gap", "best", "static"),
    ("routed_lead", "routed", "best"),
  ):
    for key in ("task_accuracy", "task_loss", "mix_accuracy", "mix_loss"):
      difference = summary[f"{one}/{key}"] - summary[f"{other}/{key}"]
      summary[f"{name}/{key}"] = difference
  return summary


def _search(
  params: models.Params,
  windows: jax.Array,
  mix: jax.Array,
  starts: jax.Array,
  *,
  model: models.Model,
  steps: int,
  learning_rate: float,
) -> jax.Array:
  flat = windows.reshape(-1, windows.shape[-1])

  def objective(x: jax.Array) -> jax.Array:
    dense, dense_params = models.merge(model, params, x)
    losses = models.score(dense, dense_params, flat).loss
    return -jnp.vdot(mix, jnp.mean(losses.reshape(windows.shape[:2]), axis=1))

  best_x, _ = maximise_on_simplex(
    objective, starts, steps=steps, learning_rate=learning_rate
  )
  return best_x


def _score_merged(
  params: models.Params,
  windows: jax.Array,
  merge_weights: jax.Array,
  *,
  model: models.Model,
) -> models.Score:
  """A `Score` of [X, V] for weights [X, E]."""

  def one(x: jax.Array) -> models.Score:
    dense, dense_params = models.merge(model, params, x)
    return _by_task(dense, dense_params, windows)

  return jax.lax.map(one, merge_weights)


def _score_routed(
  params: models.Params, windows: jax.Array, *, model: models.Model
) -> models.Score:
  return _by_task(model, params, windows)


def _by_task(
  model: models.Model, params: models.Params, windows: jax.Array
) -> models.Score:
  score = jax.lax.map(lambda task: models.score(model, params, task), windows)
  return models.Score(*(jnp.mean(x, axis=1) for x in score))


def _weigh(
  by_task: np.ndarray, first: int, mixes: jax.Array, *, is_own: bool
) -> np.ndarray:
  """[X] from rows [., V]: row `first`, or row `first + i` for mix i."""
  mixes = np.array(mixes)
  if not is_own:
    return mixes @ by_task[first]
  rows = by_task[first : first + mixes.shape[0]]
  return np.sum(mixes * rows, axis=1)
