"""Fine-tuning a trained model to use fewer experts: BEAM and its rivals.

The loss of a step is

  L_lm + alpha L_balance + beta L_reg

with the load balance of the model's own routers, and L_reg the mean mask of
BEAM (`masking.regulariser`) or another method's penalty. Trained are the added
parameters alone, or the model with them; the method "none" trains the model
alone, which is the control. With `budget` a controller moves beta instead: beta
is a parameter whose gradient is the excess of the mean number of active experts
over the budget (dual ascent), and the weight of L_reg is beta and a multiple of
the excess, which below the budget may push masks on. As a parameter beta is
saved and resumed with the others.

Letters: L layers, E experts, K experts per token, B windows, S tokens.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import data, models
from tanbr_jax.training import loop, objectives, tuning_optimiser
from tanbr_jax.training.tuning_config import TuningConfig
from tanbr_jax.training.tuning_methods import METHODS

__all__ = ["Tuned", "TuningConfig", "tune", "tuning_loss"]

# Temperatures that an annealed training goes through.
_STAGES = 10


class Tuned(NamedTuple):
  """A finished fine-tuning.

  Attributes:
    params: of the model.
    added: what the method added.
    reroute: what the model is run with; None for its own routers.
    beta: the last one.
  """

  params: models.Params
  added: Any
  reroute: models.Reroute | None
  beta: float


def tune(
  config: TuningConfig,
  model: models.Model,
  params: models.Params,
  text: data.TaskText,
  *,
  context: int,
  checkpoint_dir: str | os.PathLike[str] | None = None,
  checkpoint_every: int = 200,
  progress: bool = True,
) -> Tuned:
  """Fine-tunes a model; goes on from its last checkpoint if there is one.

  Args:
    config: what is trained, and how.
    model: with experts.
    params: its parameters.
    text: of V tasks, which batches draw from alike; tokens may be marked as
      not scored, see `data.batching`.
    context: S, tokens of a window.
    checkpoint_dir: folder of this training's checkpoints; None saves nothing.
    checkpoint_every: steps between checkpoints.
    progress: whether a bar is drawn, with loss and active experts.

  Returns:
    The parameters, what was added, and the reroute to run the model with.

  Raises:
    ValueError: before any work if the config does not fit the model; or the
      loss is not finite, or the checkpoints are of another training.
  """
  config.check_model(model)
  method = METHODS[config.method]
  init_key = jax.random.fold_in(jax.random.key(config.seed), 1)
  trained = {
    "added": method.init(config, model, params, init_key),
    "model": params,
    "beta": jnp.float32(config.beta),
  }
  teacher = params if config.distils else None
  # ZEDA's two stages, or one of them.
  num_added = config.num_steps if config.trains == "added" else 0
  if config.trains == "everything":
    num_added = round(config.added_share * config.num_steps)
  stages = {"added": num_added, "everything": config.num_steps - num_added}
  for stage, num_steps in stages.items():
    if num_steps:
      trained = _train(
        dataclasses.replace(config, num_steps=num_steps),
        model,
        trained,
        teacher,
        text,
        context=context,
        stage=stage,
        path=checkpoint_dir and Path(checkpoint_dir) / stage,
        checkpoint_every=checkpoint_every,
        progress=progress,
      )
  return Tuned(
    params=trained["model"],
    added=trained["added"],
    reroute=method.inference(config, model, trained["added"]),
    beta=float(trained["beta"]),
  )


def _train(
  config: TuningConfig,
  model: models.Model,
  trained: dict[str, Any],
  teacher: models.Params | None,
  text: data.TaskText,
  *,
  context: int,
  stage: str,
  path: Path | None,
  checkpoint_every: int,
  progress: bool,
) -> dict[str, Any]:
  """One stage: "added" trains that alone, with the model bound."""
  frozen = {"teacher": teacher}
  trained = trained | {"schedule": tuning_optimiser.schedule(config)}
  if stage == "added":
    frozen["model"] = trained.pop("model")
  settings = {
    name: jnp.float32(getattr(config, name))
    for name in ("alpha", "budget_rate", "budget_gain")
  }
  has_budget = config.budget is not None
  budget = config.budget if has_budget else 0.0
  settings["budget"] = jnp.float32(budget)
  settings["has_budget"] = jnp.float32(has_budget)
  # Figures of the config that are not in `settings` are not compiled anew for.
  loss = _loss_of(_static_part(config), model, context)
  temperatures = [
    jnp.float32(config.last_temperature ** (stage / max(_STAGES - 1, 1)))
    for stage in range(_STAGES)
  ]
  found = loop.train(
    [
      Partial(loss, text, settings | {"temperature": one}, frozen)
      for one in temperatures
    ],
    trained,
    optimiser=tuning_optimiser.make(config.clip_norm, config.accumulate),
    num_steps=config.num_steps,
    seed=config.seed,
    choose=lambda step: step * _STAGES // config.num_steps,
    tokens_per_step=config.batch_size * context,
    checkpoint_dir=path,
    checkpoint_every=checkpoint_every,
    progress=progress,
    name=f"{config.method}, {stage}",
  )
  return {"model": frozen.get("model"), **found}


def _static_part(config: TuningConfig) -> TuningConfig:
  """The config with one value of everything that is an array in the loss."""
  return dataclasses.replace(
    config,
    seed=0,
    beta=0.0,
    budget=None,
    alpha=0.0,
    budget_rate=1.0,
    budget_gain=0.0,
    last_temperature=1.0,
    num_steps=1,
    learning_rate=1.0,
    added_learning_rate=1.0,
    warmup_share=0.0,
    added_share=0.0,
  )


@functools.lru_cache(maxsize=32)
def _loss_of(
  config: TuningConfig, model: models.Model, context: int
) -> Callable[..., Any]:
  """One object for each kind of training, which is compiled once."""
  return functools.partial(
    tuning_loss, config=config, model=model, context=context
  )


def tuning_loss(
  text: data.TaskText,
  settings: dict[str, jax.Array],
  frozen: dict[str, Any],
  trained: dict[str, Any],
  key: jax.Array,
  *,
  config: TuningConfig,
  model: models.Model,
  context: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of one batch, and the figures for the bar.

  Args:
    text: of V tasks.
    settings: scalars "alpha", "temperature", "budget" and "has_budget", and
      what moves beta: "budget_rate" and "budget_gain".
    frozen: "model", if it is not trained, and "teacher" or None.
    trained: "added", "beta" and, if it is trained, "model"; the optimiser's
      "schedule" is not read.
    key: random key, consumed.
    config: of which the numbers in `settings` are not read.
    model: with experts.
    context: S.
  """
  method = METHODS[config.method]
  params = trained["model"] if "model" in trained else frozen["model"]
  windows = objectives.uniform_windows(key, text, config.batch_size, context)
  read = data.read_windows(windows)
  added = trained["added"]
  logits, seen = model.apply(
    params,
    read.inputs,
    attention_mask=read.is_text,
    reroute=method.training(config, model, added, settings["temperature"]),
    observe=method.observe(config, added),
  )
  figures = jax.tree.map(jnp.mean, seen)  # over the layers
  if config.distils:
    teacher = model.apply(
      frozen["teacher"], read.inputs, attention_mask=read.is_text
    )
    fit = _divergence(teacher, logits, read.is_scored)
  else:
    scores = models.score_logits(logits, read.targets, read.is_scored)
    fit = jnp.mean(scores.loss)
  weight, ascent = _weight(trained["beta"], figures.num_active, settings, model)
  total = fit + settings["alpha"] * figures.load_balance
  total += weight * figures.penalty + ascent
  return total, {"active": figures.num_active, "beta": weight}


def _weight(
  beta: jax.Array,
  num_active: jax.Array,
  settings: dict[str, jax.Array],
  model: models.Model,
) -> tuple[jax.Array, jax.Array]:
  """The penalty's weight, and a term of zero whose gradient moves beta.

  Without a budget the weight is beta, which stays.
  """
  share = jnp.float32(1 / model.config.num_selected)
  excess = share * (num_active - settings["budget"]) * settings["has_budget"]
  excess = jax.lax.stop_gradient(excess)
  held = jax.lax.stop_gradient(beta)
  weight = held + settings["budget_gain"] * excess
  return weight, -settings["budget_rate"] * excess * (beta - held)


def _divergence(
  teacher: jax.Array, logits: jax.Array, is_scored: jax.Array | None
) -> jax.Array:
  """Mean KL divergence of the model's distribution from the teacher's."""
  log_teacher = jax.nn.log_softmax(jax.lax.stop_gradient(teacher))
  difference = log_teacher - jax.nn.log_softmax(logits)
  by_token = jnp.sum(jnp.exp(log_teacher) * difference, axis=-1)
  return jnp.mean(models.mean_over_scored(by_token, is_scored))
