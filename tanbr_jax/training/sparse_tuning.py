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
import optax
from jax.tree_util import Partial

from tanbr_jax import data, masking, models, moe
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import (
  Count,
  NonNegative,
  Positive,
  Share,
  Whole,
)
from tanbr_jax.masking import mask_router
from tanbr_jax.moe import MoeInput, MoeOutput
from tanbr_jax.training import loop, objectives

METHODS = ("none", "smaller_k", "beam", "null_experts", "top_any")
TRAINED = ("everything", "added")
PENALTIES = ("l1", "l2")
# Temperatures that an annealed training goes through.
_STAGES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningConfig(ranges.Checked):
  """Everything that decides a fine-tuning; flat, so that it can be swept.

  Attributes:
    method: one of `METHODS`.
    trains: "everything", or "added": what the method adds alone.
    seed: of batches and of what is drawn.
    num_steps: optimiser's steps of gradients of one batch each.
    batch_size: B.
    accumulate: batches whose mean gradient is one step of the optimiser's.
    learning_rate: highest rate of the model's parameters.
    added_learning_rate: highest rate of the added ones.
    warmup_share: share of the steps in which the rates rise linearly; then they
      fall linearly to zero.
    clip_norm: largest norm of the model's and of the added gradient.
    alpha: weight of the load balance.
    beta: weight of the penalty; where there is a budget, the first one.
    budget: mean number of active experts that beta is moved for, in (0, K];
      None for a constant beta.
    budget_rate: how much of the excess, in parts of K, a step adds to beta.
    budget_gain: how much of it is added to the step's weight alone.
    penalty: of "beam": the mean mask, or "l2" its mean square.
    form: of "beam": see `masking.beam_in_training`.
    last_temperature: of soft masks, which begin at 1 and get harder; 1 for not.
    is_strict: of "beam": whether a mask of exactly one half is off.
    num_selected: k of "smaller_k"; None for K.
    num_null: M of "null_experts".
    counts_null: of "null_experts": see `masking.null_experts`.
    num_slots: of "top_any".
    distils: whether L_lm is the divergence from the model as it was.
    added_share: share of the steps, at the start, that train what is added
      alone (ZEDA's first stage).
  """

  method: str = "beam"
  trains: str = "everything"
  seed: Whole = 0
  num_steps: Count = 300
  batch_size: Count = 32
  accumulate: Count = 1
  learning_rate: Positive = 5e-5
  added_learning_rate: Positive = 1e-3
  warmup_share: Share = 0.03
  clip_norm: Positive = 1.0
  alpha: NonNegative = 1e-3
  beta: NonNegative = 0.1
  budget: Positive | None = None
  budget_rate: Positive = 0.05
  budget_gain: NonNegative = 4.0
  penalty: str = "l1"
  form: str = "hard"
  last_temperature: Positive = 1.0
  is_strict: bool = False
  num_selected: Count | None = None
  num_null: Count = 8
  counts_null: bool = False
  num_slots: Count | None = None
  distils: bool = False
  added_share: Share = 0.0

  def __post_init__(self) -> None:
    """Refuses what cannot be trained.

    Raises:
      ValueError: a number is out of range, a name unknown, or "added" is to be
        trained where nothing is added.
    """
    super().__post_init__()
    for name, known in (
      ("method", METHODS),
      ("trains", TRAINED),
      ("penalty", PENALTIES),
      ("form", mask_router.FORMS),
    ):
      check_choice(name, getattr(self, name), known)
    if self.trains == "added" and self.method in ("none", "smaller_k"):
      raise ValueError(
        f"method={self.method!r} adds nothing to train, got trains='added'"
      )
    if self.budget is not None and self.method != "beam":
      raise ValueError(
        f"a budget needs method='beam', got method={self.method!r}, "
        f"budget={self.budget}"
      )

  def check_model(self, model: models.Model) -> None:
    """Raises a ValueError if the model has no experts or too few of them."""
    config = model.config
    if config.num_experts is None:
      raise ValueError("the model must have experts, got num_experts=None")
    most = {
      "budget": config.num_selected,
      "num_selected": config.num_selected,
      "num_slots": config.num_experts,
    }
    for name, limit in most.items():
      value = getattr(self, name)
      if value is not None and value > limit:
        raise ValueError(
          f"{name} must be at most {limit} of this model, got {name}={value}"
        )


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


class _Figures(NamedTuple):
  """What a method's observer tells of a layer, each [] float32."""

  penalty: jax.Array
  load_balance: jax.Array
  num_active: jax.Array


class _Method(NamedTuple):
  """A method as functions of (config, model, ...)."""

  init: Callable[..., Any]  # (config, model, params, key) -> added
  training: Callable[..., Any]  # (config, model, added, temperature) -> reroute
  inference: Callable[..., Any]  # (config, model, added) -> reroute
  observe: Callable[..., Any]  # (config, added) -> observer of `_Figures`


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
  method = _METHODS[config.method]
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
  if stage == "added":
    trained = dict(trained)
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
    optimiser=_optimiser(_rates(config)),
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
    trained: "added", "beta" and, if it is trained, "model".
    key: random key, consumed.
    config: of which the numbers in `settings` are not read.
    model: with experts.
    context: S.
  """
  method = _METHODS[config.method]
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


class _Rates(NamedTuple):
  """What decides an optimiser."""

  model: float
  added: float
  warmup_steps: int
  num_steps: int
  clip_norm: float
  accumulate: int


def _rates(config: TuningConfig) -> _Rates:
  num_steps = -(-config.num_steps // config.accumulate)
  return _Rates(
    model=config.learning_rate,
    added=config.added_learning_rate,
    warmup_steps=round(config.warmup_share * num_steps),
    num_steps=num_steps,
    clip_norm=config.clip_norm,
    accumulate=config.accumulate,
  )


@functools.lru_cache(maxsize=8)
def _optimiser(rates: _Rates) -> optax.GradientTransformation:
  """Adam for the model and for what is added, plain steps for beta."""

  def adam(rate: float) -> optax.GradientTransformation:
    schedule = optax.join_schedules(
      [
        optax.linear_schedule(0.0, rate, rates.warmup_steps),
        optax.linear_schedule(rate, 0.0, rates.num_steps - rates.warmup_steps),
      ],
      [rates.warmup_steps],
    )
    return optax.chain(
      optax.clip_by_global_norm(rates.clip_norm),
      optax.adam(schedule, b2=0.98),
    )

  def labels(trained: dict[str, Any]) -> dict[str, str]:
    return {name: name for name in trained}

  optimiser = optax.multi_transform(
    {
      "model": adam(rates.model),
      "added": adam(rates.added),
      "beta": optax.sgd(1.0),
    },
    labels,
  )
  if rates.accumulate == 1:
    return optimiser
  steps = optax.MultiSteps(optimiser, rates.accumulate)
  return steps.gradient_transformation()


def _see_own(tree: None, layer: MoeInput, output: MoeOutput) -> _Figures:
  """Without a penalty, of the model's own routers or of fewer of theirs."""
  del tree, output
  active = moe.is_active(layer.routing) & layer.token_mask[:, None]
  num_tokens = jnp.sum(layer.token_mask, dtype=jnp.float32)
  num_active = jnp.sum(active, dtype=jnp.float32) / jnp.maximum(num_tokens, 1)
  balance = moe.load_balance_loss(layer.routing, layer.token_mask)
  return _Figures(jnp.float32(0), balance, num_active)


def _see_masks(
  tree: masking.MaskRouter,
  layer: MoeInput,
  output: MoeOutput,
  *,
  penalty: str,
) -> _Figures:
  found = masking.observe_masks(tree, layer, output)
  chosen = found.mean if penalty == "l1" else found.mean_square
  return _Figures(chosen, found.load_balance, found.num_active)


def _see_null(tree: Any, layer: MoeInput, output: MoeOutput) -> _Figures:
  penalty = masking.observe_balance(tree, layer, output)
  own = _see_own(None, layer, output)
  # The penalty is the load balance of all experts already.
  return own._replace(penalty=penalty, load_balance=jnp.float32(0))


def _see_any(tree: Any, layer: MoeInput, output: MoeOutput) -> _Figures:
  own = _see_own(None, layer, output)
  return own._replace(penalty=masking.observe_sparsity(tree, layer, output))


_SEE_MASKS = {
  penalty: functools.partial(_see_masks, penalty=penalty)
  for penalty in PENALTIES
}


def _fewer(config: TuningConfig, model: models.Model, *unused: Any) -> Any:
  count = config.num_selected or model.config.num_selected
  return masking.smaller_k(model, count)


def _nothing(*unused: Any) -> dict[str, jax.Array]:
  return {}


def _null(
  config: TuningConfig, model: models.Model, added: Any, *_: Any
) -> Any:
  return masking.null_experts(model, added, counts_null=config.counts_null)


def _any(config: TuningConfig, model: models.Model, added: Any, *_: Any) -> Any:
  return masking.top_any(model, added, num_slots=config.num_slots)


_METHODS = {
  "none": _Method(
    init=_nothing,
    training=lambda *_: None,
    inference=lambda *_: None,
    observe=lambda *_: Partial(_see_own, None),
  ),
  "smaller_k": _Method(
    init=_nothing,
    training=_fewer,
    inference=_fewer,
    observe=lambda *_: Partial(_see_own, None),
  ),
  "beam": _Method(
    init=lambda config, model, params, key: masking.init_mask_router(model),
    training=lambda config, model, added, temperature: masking.beam_in_training(
      added,
      form=config.form,
      temperature=temperature,
      is_strict=config.is_strict,
    ),
    inference=lambda config, model, added: masking.beam(
      added, is_strict=config.is_strict
    ),
    observe=lambda config, added: Partial(_SEE_MASKS[config.penalty], added),
  ),
  "null_experts": _Method(
    init=lambda config, model, params, key: masking.init_null_router(
      key, model, num_null=config.num_null
    ),
    training=_null,
    inference=_null,
    observe=lambda config, added: Partial(_see_null, added),
  ),
  "top_any": _Method(
    init=lambda config, model, params, key: masking.init_top_any(model, params),
    training=_any,
    inference=_any,
    observe=lambda config, added: Partial(_see_any, added),
  ),
}
