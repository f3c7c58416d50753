"""What a model's forms are worth: losses, accuracies and continued prompts.

Letters: V tasks, E experts, X merge weights, n windows, S tokens of context.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.upcycle.settings import UpcycleSettings
from experiments.upcycle.text import OTHER, Text
from tanbr_jax import models
from tanbr_jax.models.scoring import Score
from tanbr_jax.simplex.search import maximise_on_simplex

# A form's scores: "loss" and "accuracy", each [V + 1], the last of no task.
Scores = dict[str, list[float]]


@functools.partial(jax.jit, static_argnames="model")
def _score(
  model: models.Model, params: models.Params, windows: jax.Array
) -> Score:
  scores = models.score(model, params, windows)
  return Score(*(jnp.mean(part) for part in scores))


def score(model: models.Model, params: models.Params, text: Text) -> Scores:
  """Scores of a model as it is, routed or dense."""
  one_loop = models.scanned(model)
  found = [_score(one_loop, params, windows) for windows in text.test]
  return {
    name: [float(getattr(one, name)) for one in found] for name in Score._fields
  }


@functools.partial(jax.jit, static_argnames=("model", "steps", "learning_rate"))
def _search(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  starts: jax.Array,
  *,
  steps: int,
  learning_rate: float,
) -> jax.Array:
  """The best weights [E] for text [n, S + 1], from starts [R, E]."""

  def objective(x: jax.Array) -> jax.Array:
    dense, merged = models.merge(model, params, x)
    return -jnp.mean(models.score(dense, merged, windows).loss)

  return maximise_on_simplex(
    objective, starts, steps=steps, learning_rate=learning_rate
  )[0]


def choose(
  settings: UpcycleSettings,
  model: models.Model,
  params: models.Params,
  text: Text,
  task_weights: jax.Array | None,
) -> dict[str, np.ndarray]:
  """Merge weights by form, chosen on validation text.

  Returns:
    "uniform" and "static" (the best for all tasks together) [1, E]; "own" (the
    best for each task) [V, E]; "table" (the training's) [V, E] if there is one.
  """
  num_experts = model.config.num_experts
  search = functools.partial(
    _search,
    models.scanned(model),
    params,
    steps=settings.search_steps,
    learning_rate=settings.search_learning_rate,
  )
  uniform = jnp.full((1, num_experts), 1 / num_experts, jnp.float32)
  guesses = task_weights
  if guesses is None:
    one_loop = models.scanned(model)
    usage = models.task_usage(one_loop, params, text.validation)
    guesses = usage / jnp.sum(usage, axis=1, keepdims=True)
  middle = jnp.mean(guesses, axis=0, keepdims=True)
  starts = jnp.concatenate([uniform, middle])
  length = text.validation.shape[-1]
  static = search(text.validation.reshape(-1, length), starts)[None]
  own = [
    search(windows, jnp.concatenate([static, guess[None]]))
    for windows, guess in zip(text.validation, guesses, strict=True)
  ]
  found = {"uniform": uniform, "static": static, "own": jnp.stack(own)}
  if task_weights is not None:
    found["table"] = task_weights
  return {name: np.asarray(weights) for name, weights in found.items()}


def score_merged(
  model: models.Model,
  params: models.Params,
  text: Text,
  weights: np.ndarray,
) -> Scores:
  """Scores of merged models: one for all text, or one for each task.

  Args:
    model: with experts.
    params: its parameters.
    text: of the tasks.
    weights: [1, E] for all text or [V, E]; on text of no task the mean over
      all of them.
  """
  num_tasks = len(text.test) - 1
  found: dict[str, list] = {name: [] for name in Score._fields}
  others = []
  for task, row in enumerate(weights):
    dense, merged = models.merge(
      models.scanned(model), params, jnp.asarray(row)
    )
    own = range(num_tasks) if len(weights) == 1 else [task]
    for index in own:
      one = _score(dense, merged, text.test[index])
      for name in found:
        found[name].append(float(getattr(one, name)))
    others.append(_score(dense, merged, text.test[-1]))
  for name, values in found.items():
    values.append(float(np.mean([getattr(one, name) for one in others])))
  return found


def forms(
  settings: UpcycleSettings,
  model: models.Model,
  params: models.Params,
  text: Text,
  task_weights: jax.Array | None,
) -> tuple[dict[str, Scores], dict[str, np.ndarray]]:
  """Scores and merge weights by form; of parts of an FFN routed alone."""
  found = {"routed": score(model, params, text)}
  if settings.upcycle.parts > 1:
    return found, {}
  weights = choose(settings, model, params, text, task_weights)
  for name, rows in weights.items():
    found[name] = score_merged(model, params, text, rows)
  return found, weights


def continue_prompts(
  settings: UpcycleSettings,
  model: models.Model,
  params: models.Params,
  tokenizer: Any,
  weights: Mapping[str, np.ndarray],
  task_names: tuple[str, ...],
) -> dict[str, dict[str, str]]:
  """Greedy continuations by form and prompt's task.

  Args:
    settings: with the prompts by task.
    model: with experts, or dense.
    params: its parameters.
    tokenizer: of the checkpoint.
    weights: of `choose`; empty for the model as it is alone.
    task_names: of the text.
  """
  # Padded to one length, so that each form is compiled once.
  prompts = {
    task: tokenizer.encode(t).ids for task, t in settings.prompts.items()
  }
  longest = max((len(ids) for ids in prompts.values()), default=0)
  found: dict[str, dict[str, str]] = {}

  def add(form: str, task: str, one: models.Model, own: models.Params) -> None:
    room = longest - len(prompts[task])
    new = models.generate(
      one,
      own,
      jnp.array([[0] * room + prompts[task]]),
      attention_mask=jnp.arange(longest)[None] >= room,
      max_new_tokens=settings.new_tokens,
    )
    text = tokenizer.decode(np.asarray(new)[0].tolist())
    found.setdefault(form, {})[task] = text

  for task in prompts:
    add("itself", task, model, params)
    if weights:
      rows = {"uniform": weights["uniform"][0]}
      if task in task_names[:-1]:
        rows["own"] = weights["own"][task_names.index(task)]
      for form, row in rows.items():
        add(form, task, *models.merge(model, params, jnp.asarray(row)))
  return found


def means(scores: Scores) -> dict[str, float]:
  """Flat figures: means over tasks, and those of no task."""
  return {
    **{name: float(np.mean(values[:-1])) for name, values in scores.items()},
    **{f"{OTHER}_{name}": values[-1] for name, values in scores.items()},
  }
