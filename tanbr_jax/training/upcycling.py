"""Fine-tunes the FFNs of a dense checkpoint as experts.

Three recipes make E experts of each FFN: "domains" (one expert a task, each
trained on its task alone: fine-tunes of one base), "merged" (the merged form
with a learnt table, every few steps the routed form) and "routed" (the routed
form alone). The first of their steps may train the dense model on all tasks,
from which the experts then branch. A last phase may train the routers alone.
"dense" is the control: the FFNs of the dense model itself, trained on all tasks
with the same steps. Attention, norms and embedding stay as they are unless all
is trained. [R] reconstruction: the paper
takes a mergeable model as given.

Letters: V tasks, E experts, K experts per token, B windows, S tokens of
context.
"""

import dataclasses
import functools
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from tanbr_jax import data, models
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import Count, NonNegative, Positive, Share, Whole
from tanbr_jax.models.base import DTYPES
from tanbr_jax.training import loop, objectives

RECIPES = ("domains", "merged", "routed", "dense")
TRAINED = ("experts", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpcycleConfig(ranges.Checked):
  """Everything but the dense model and the text that decides a training.

  Attributes:
    num_experts: E; for "domains" the number of tasks.
    num_selected: K.
    parts: experts that one FFN is cut into, see `models.upcycle`; above 1 for
      "routed" alone, as parts of an FFN do not average.
    noise: of the experts' copies, relative.
    trained: "experts" (and routers), or "all" parameters.
    last_layers: of "experts", in how many of the last layers; 0 for all.
    dtype: of the computation; parameters are trained in float32.
    context: S.
    batch_size: B, windows a step.
    mixes_per_step: mixes a step of a merged form, which divides B; of "domains"
      the tasks a step, no two alike.
    num_steps: steps.
    shared_steps: how many of them, the first, train the dense model on all
      tasks before experts are made of it; those of "dense" are all alike.
    router_steps: more steps, of the routers alone.
    task_loss: of "domains", weight of the routers' cross-entropy with the
      expert of the token's task.
    routed_every: of "merged", every such step is a routed one; 0 for none.
    learning_rate: highest rate of the experts; see `loop.adamw`.
    router_rate: that of routers and table, in units of the experts'.
    warmup_steps: of each phase.
    weight_decay: of matrices that are no router's.
    one_hot_fraction: of "merged", share of mixes that are one task alone.
    mix_concentration: of the Dirichlet that the other mixes are drawn from.
    weight_noise: of "merged", share of x that is a random point.
    load_balance: weight of the load-balance loss of routed steps.
    z_loss: weight of the router's z loss.
    checkpoint_every: steps between checkpoints; 0 for none.
  """

  num_experts: Count = 8
  num_selected: Count = 2
  parts: Count = 1
  noise: NonNegative = 0.0
  trained: str = "experts"
  last_layers: Whole = 0
  dtype: str = "float32"
  context: Count = 256
  batch_size: Count = 32
  mixes_per_step: Count = 4
  num_steps: Count = 300
  shared_steps: Whole = 0
  router_steps: Whole = 0
  task_loss: NonNegative = 0.0
  routed_every: Whole = 5
  learning_rate: Positive = 3e-4
  router_rate: Positive = 10.0
  warmup_steps: Whole = 20
  weight_decay: NonNegative = 0.0
  one_hot_fraction: Share = 0.9
  mix_concentration: Positive = 0.3
  weight_noise: Share = 0.0
  load_balance: NonNegative = 0.01
  z_loss: NonNegative = 1e-4
  checkpoint_every: Whole = 0

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    for name, known in (("trained", TRAINED), ("dtype", DTYPES)):
      check_choice(name, getattr(self, name), known)
    if self.batch_size % self.mixes_per_step:
      raise ValueError(
        "batch_size must be a multiple of mixes_per_step, got batch_size="
        f"{self.batch_size}, mixes_per_step={self.mixes_per_step}"
      )
    if self.shared_steps >= self.num_steps:
      raise ValueError(
        "shared_steps must be below num_steps, got shared_steps="
        f"{self.shared_steps}, num_steps={self.num_steps}"
      )

  def check_recipe(self, recipe: str, num_tasks: int) -> None:
    """Raises a ValueError if a recipe is not known or does not fit V tasks."""
    check_choice("recipe", recipe, RECIPES)
    if recipe == "domains" and num_tasks != self.num_experts:
      raise ValueError(
        "recipe 'domains' needs as many experts as tasks, got num_experts="
        f"{self.num_experts}, num_tasks={num_tasks}"
      )
    if recipe == "domains" and self.mixes_per_step > num_tasks:
      raise ValueError(
        "recipe 'domains' trains mixes_per_step different tasks a step, got "
        f"mixes_per_step={self.mixes_per_step}, num_tasks={num_tasks}"
      )
    if recipe in ("domains", "merged") and self.parts > 1:
      raise ValueError(
        f"parts of an FFN do not average: recipe {recipe!r} needs parts=1, got "
        f"parts={self.parts}"
      )


class Upcycled(NamedTuple):
  """A trained model.

  Attributes:
    model: which `models.save_pretrained` writes; computes in the config's type.
    params: of the model, in its type.
    task_weights: [V, E] the table that training used, None without one.
    seconds: wall clock, compilation included.
  """

  model: models.Decoder
  params: models.Params
  task_weights: jax.Array | None
  seconds: float


def train(
  config: UpcycleConfig,
  recipe: str,
  dense: models.Decoder,
  dense_params: models.Params,
  text: data.TaskText,
  *,
  seed: int,
  checkpoint_dir: Path | None = None,
  progress: bool = True,
) -> Upcycled:
  """Makes experts of a dense model's FFNs and trains them by a recipe.

  Args:
    config: how.
    recipe: one of `RECIPES`.
    dense: of `models.from_pretrained`, a Llama or a Mistral.
    dense_params: its parameters, float32.
    text: of V tasks, each of at least S + 1 tokens.
    seed: of the routers' first values, the batches and the mixes.
    checkpoint_dir: where checkpoints are kept if the config has any; a killed
      training goes on from the last one.
    progress: whether bars are drawn.

  Raises:
    ValueError: a recipe, a number or the model does not fit; a loss is not
      finite.
  """
  num_tasks = text.lengths.shape[0]
  config.check_recipe(recipe, num_tasks)
  start = time.perf_counter()
  fit = functools.partial(
    _fit, config, text, seed, checkpoint_dir=checkpoint_dir, progress=progress
  )
  if config.shared_steps and recipe != "dense":
    shared = fit(
      dense,
      {"model": dense_params},
      "dense",
      phase="shared",
      num_steps=config.shared_steps,
    )
    dense_params = shared["model"]
  # Float32 parameters, of experts and the table of their merges.
  model, params = _first(config, recipe, dense, dense_params, seed)
  trained = {"model": params}
  if recipe in ("domains", "merged"):
    trained["table"] = objectives.first_table(
      "identity" if recipe == "domains" else "learnt",
      seed,
      num_tasks=num_tasks,
      num_experts=config.num_experts,
      concentration=0.5,
      mixing=0.3,
    )
  # The recipe's own steps, then those of the routers.
  num_shared = 0 if recipe == "dense" else config.shared_steps
  trained = fit(
    model,
    trained,
    recipe,
    phase="experts",
    num_steps=config.num_steps - num_shared,
  )
  if config.router_steps and recipe != "dense":
    trained = fit(
      model, trained, recipe, phase="routers", num_steps=config.router_steps
    )
  computing = _computing(model, config)
  params = _cast(trained["model"], computing)
  jax.block_until_ready(params)
  table = trained.get("table")
  return Upcycled(
    computing,
    params,
    None if table is None else jax.nn.softmax(table, axis=-1),
    time.perf_counter() - start,
  )


def _computing(model: models.Decoder, config: UpcycleConfig) -> models.Decoder:
  """The model that computes in the config's type."""
  return dataclasses.replace(
    model, config=dataclasses.replace(model.config, dtype=config.dtype)
  )


def _fit(
  config: UpcycleConfig,
  text: data.TaskText,
  seed: int,
  model: models.Decoder,
  trained: Any,
  recipe: str,
  *,
  phase: str,
  num_steps: int,
  checkpoint_dir: Path | None,
  progress: bool,
) -> Any:
  """One phase: "shared", "experts" or "routers".

  Args:
    config: how.
    text: of V tasks.
    seed: of the batches and the mixes.
    model: in float32.
    trained: tree of the model's parameters and, if there is one, the table.
    recipe: whose losses; "dense" for a model without experts.
    phase: which; what it does not train stays as it is.
    num_steps: of the phase.
    checkpoint_dir: as of `train`.
    progress: as of `train`.

  Returns:
    The tree with other values of what is trained.
  """
  computing = _computing(model, config)
  # One loop would be differentiated whole where its last layers are trained.
  one_loop = computing if config.last_layers else models.scanned(computing)
  losses = _losses(config, recipe, one_loop, text, seed)
  if phase == "routers":
    split = _split(trained, _is_router)
  else:
    num_layers = model.config.num_layers
    split = _split(
      trained, lambda name: _is_trained(name, config, recipe, num_layers)
    )
  # Every so often a step of another loss.
  main = {"dense": "dense", "routed": "routed"}.get(recipe, "merged")
  if phase == "routers":
    main = "routed"
  every = config.routed_every if recipe == "merged" else 0

  def which(step: int) -> str:
    is_routed = every > 0 and step % every == every - 1
    return "routed" if is_routed else main

  names = sorted(losses)
  found = loop.train(
    [
      Partial(
        functools.partial(
          _whole_loss,
          loss=losses[name].func,
          structure=split.structure,
          order=split.order,
          model=computing,
        ),
        split.frozen,
        losses[name].args,
      )
      for name in names
    ],
    split.trained,
    optimiser=_optimiser(config, num_steps),
    num_steps=num_steps,
    seed=seed,
    choose=lambda step: names.index(which(step)),
    tokens_per_step=config.batch_size * config.context,
    checkpoint_dir=checkpoint_dir / phase
    if checkpoint_dir and config.checkpoint_every
    else None,
    checkpoint_every=config.checkpoint_every or num_steps,
    progress=progress,
    name=f"{phase if phase != 'experts' else recipe} {seed}",
  )
  return split.join(found)


def _first(
  config: UpcycleConfig,
  recipe: str,
  dense: models.Decoder,
  dense_params: models.Params,
  seed: int,
) -> tuple[models.Decoder, models.Params]:
  """The model and the parameters that training starts from."""
  if recipe == "dense":
    return dense, dense_params
  model = models.expert_form(
    dense,
    num_experts=config.num_experts,
    num_selected=config.num_selected,
    parts=config.parts,
  )
  key = jax.random.key(seed)
  return model, models.upcycle(key, model, dense_params, noise=config.noise)


class _Split(NamedTuple):
  """A tree in two: what is trained, and what is not.

  Attributes:
    trained: leaf by name.
    frozen: leaf by name.
    structure: of the tree.
    order: the names in the tree's order.
  """

  trained: dict[str, jax.Array]
  frozen: dict[str, jax.Array]
  structure: Any
  order: tuple[str, ...]

  def join(self, trained: Mapping[str, jax.Array]) -> Any:
    """The tree with other values of what is trained."""
    return _join(trained, self.frozen, self.structure, self.order)


def _split(tree: Any, is_trained: Callable[[str], bool]) -> _Split:
  found, structure = jax.tree_util.tree_flatten_with_path(tree)
  leaves = {jax.tree_util.keystr(path): leaf for path, leaf in found}
  trained = {name: leaf for name, leaf in leaves.items() if is_trained(name)}
  frozen = {k: leaf for k, leaf in leaves.items() if k not in trained}
  return _Split(trained, frozen, structure, tuple(leaves))


def _join(
  trained: Mapping[str, jax.Array],
  frozen: Mapping[str, jax.Array],
  structure: Any,
  order: tuple[str, ...],
) -> Any:
  leaves = {**frozen, **trained}
  return jax.tree.unflatten(structure, [leaves[name] for name in order])


def _is_router(name: str) -> bool:
  return "['router']" in name


def _is_trained(
  name: str, config: UpcycleConfig, recipe: str, num_layers: int
) -> bool:
  """Whether a leaf is trained in a recipe's own steps."""
  if name == "['table']":
    return recipe == "merged"
  if config.trained == "all":
    return True
  first = num_layers - config.last_layers if config.last_layers else 0
  layer = re.search(r"\['layer_(\d+)'\]\['experts'\]", name)
  return layer is not None and int(layer[1]) >= first


def _cast(params: models.Params, model: models.Decoder) -> models.Params:
  """Parameters in the types that a model computes in; routers stay float32."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  wanted = jax.eval_shape(model.init, key)
  return jax.tree.map(lambda leaf, to: leaf.astype(to.dtype), params, wanted)


def _whole_loss(
  frozen: Mapping[str, jax.Array],
  arguments: tuple[Any, ...],
  trained: Mapping[str, jax.Array],
  key: jax.Array,
  *,
  loss: loop.Loss,
  structure: Any,
  order: tuple[str, ...],
  model: models.Decoder,
) -> jax.Array:
  """A loss of the whole tree as one of what is trained."""
  tree = _join(trained, frozen, structure, order)
  tree = {**tree, "model": _cast(tree["model"], model)}
  return loss(*arguments, tree, key)


def _losses(
  config: UpcycleConfig,
  recipe: str,
  model: models.Decoder,
  text: data.TaskText,
  seed: int,
) -> dict[str, Partial]:
  """Losses by name, of the tree of model and table."""
  sizes = {"context": config.context, "batch_size": config.batch_size}
  if recipe == "dense":
    loss = functools.partial(_dense_loss, model=model, **sizes)
    return {"dense": Partial(loss, text)}
  settings = {
    name: jnp.float32(getattr(config, name))
    for name in ("weight_noise", "load_balance", "z_loss", "task_loss")
  }
  num_tasks = text.lengths.shape[0]
  alone = recipe == "domains"
  if alone:
    settings["weight_noise"] = jnp.float32(0)
    settings["mixes"] = jnp.eye(num_tasks, dtype=jnp.float32)
  else:
    settings["mixes"] = jnp.asarray(
      objectives.draw_mixes(
        seed,
        num_tasks=num_tasks,
        concentration=config.mix_concentration,
        one_hot_fraction=config.one_hot_fraction,
      )
    )
  merged = functools.partial(
    objectives.merged_loss,
    model=model,
    num_mixes=config.mixes_per_step,
    is_learnt=recipe == "merged",
    distinct=alone,
    **sizes,
  )
  routed = functools.partial(
    objectives.routed_loss, model=model, has_task_experts=alone, **sizes
  )
  return {
    "merged": Partial(merged, text, settings),
    "routed": Partial(routed, text, settings),
  }


def _dense_loss(
  text: data.TaskText, tree: Any, key: jax.Array, **given: Any
) -> jax.Array:
  return objectives.dense_loss(text, tree["model"], key, **given)


def _optimiser(
  config: UpcycleConfig, num_steps: int
) -> optax.GradientTransformation:
  """AdamW; routers and table at a rate of their own, and without decay."""

  def is_small(name: str) -> bool:
    return _is_router(name) or name == "['table']"

  def decays(params: Mapping[str, jax.Array]) -> dict[str, bool]:
    marks = loop.is_matrix(params)
    return {name: marks[name] and not is_small(name) for name in marks}

  adamw = loop.adamw(
    learning_rate=config.learning_rate,
    num_steps=num_steps,
    warmup_steps=min(config.warmup_steps, num_steps - 1),
    weight_decay=config.weight_decay,
    decays=decays,
  )
  faster = optax.masked(
    optax.scale(config.router_rate),
    lambda params: {name: is_small(name) for name in params},
  )
  return optax.chain(adamw, faster)
