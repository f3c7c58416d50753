"""Short fine-tuning after compression: of the routers, or of everything.

Letters: n windows, S tokens of context, B windows of a step.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import models
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import Count, Positive, Whole
from tanbr_jax.models.fine_tunes import FineTunes
from tanbr_jax.training import loop

PARTS = ("router", "all")
# What of a layer's experts is no parameter.
_STATIC = "routes"


@ranges.checked
def recover(
  model: models.Model,
  params: models.Params,
  windows: jax.Array | np.ndarray,
  *,
  part: str,
  num_steps: Count,
  batch_size: Count = 8,
  learning_rate: Positive = 1e-4,
  seed: Whole = 0,
  progress: bool = False,
  name: str = "recovery",
) -> models.Params:
  """Trains a pruned or merged model on text for a few steps.

  The loss is that of the next token, the optimiser AdamW without decay, with a
  cosine to a tenth. Memory for gradients and Adam's moments is that of the part
  alone. Parameters keep their type: in bfloat16 small steps round to none, but
  routers are float32.

  Args:
    model: routed or dense.
    params: its parameters.
    windows: [n, S + 1] integer tokens, marked as in `data.batching`.
    part: "router" trains the routers' parameters, "all" every parameter.
    num_steps: how many.
    batch_size: B, windows of a step, drawn with replacement.
    learning_rate: the highest rate.
    seed: of the draws.
    progress: whether there is a bar.
    name: its title, and what an error names.

  Returns:
    The parameters, trained; what was not trained is shared.

  Raises:
    ValueError: if the part is unknown or the model has none of it, the windows
      are none, or the loss is not finite.
  """
  windows = jnp.asarray(windows)
  if windows.ndim != 2 or 0 in windows.shape or windows.shape[1] < 2:
    raise ValueError(
      f"windows must be [n, S + 1] with a token to predict, got {windows.shape}"
    )
  trained, frozen = _split(model, params, part)
  loss = jax.tree_util.Partial(_function(model, batch_size), windows, frozen)
  found = loop.train(
    [loss],
    trained,
    optimiser=_optimiser(learning_rate=learning_rate, num_steps=num_steps),
    num_steps=num_steps,
    seed=seed,
    tokens_per_step=batch_size * (windows.shape[1] - 1),
    progress=progress,
    name=name,
  )
  return _joined(frozen, found)


# One optimiser and one function a model, or another seed would compile again.
_optimiser = functools.lru_cache(maxsize=8)(loop.adamw)


@functools.cache
def _function(model: models.Model, batch_size: int) -> Callable[..., jax.Array]:
  def loss(
    windows: jax.Array, frozen: Any, trained: Any, key: jax.Array
  ) -> jax.Array:
    rows = jax.random.randint(key, (batch_size,), 0, len(windows), jnp.int32)
    found = models.score(model, _joined(frozen, trained), windows[rows])
    return jnp.mean(found.loss)

  return loss


def _split(
  model: models.Model, params: models.Params, part: str
) -> tuple[Any, Any]:
  """Two trees of the parameters: those that are trained, and the others."""
  check_choice("part", part, PARTS)
  if isinstance(model, FineTunes):
    raise ValueError("a model of fine-tunes is not trained: merge it first")
  trained, frozen = {}, {}
  for name, layer in params["params"].items():
    experts = layer.get("experts", {}) if isinstance(layer, dict) else {}
    if part == "all":
      trained[name], frozen[name] = layer, {}
      if _STATIC in experts:
        trained[name] = {**layer, "experts": _without(experts, _STATIC)}
        frozen[name] = {"experts": {_STATIC: experts[_STATIC]}}
    elif "router" in experts:
      trained[name] = {"experts": {"router": experts["router"]}}
      frozen[name] = {**layer, "experts": _without(experts, "router")}
    else:
      frozen[name] = layer
  if not trained:
    raise ValueError("a dense model has no routers, got part='router'")
  return {"params": trained}, {"params": frozen}


def _without(tree: dict[str, Any], name: str) -> dict[str, Any]:
  return {key: value for key, value in tree.items() if key != name}


def _joined(frozen: Any, trained: Any) -> Any:
  """Both trees of dictionaries as one."""
  if not isinstance(frozen, dict) or not isinstance(trained, dict):
    return trained
  both = frozen | trained
  for name in frozen.keys() & trained.keys():
    both[name] = _joined(frozen[name], trained[name])
  return both
