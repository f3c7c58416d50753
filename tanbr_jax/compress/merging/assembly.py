"""From a layer's merged experts to a model and its parameters.

Letters: L layers, E experts, G groups, P outputs of a router, D model width.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from tanbr_jax import models, moe
from tanbr_jax.compress import ranking
from tanbr_jax.models.base import Model, Params
from tanbr_jax.models.fine_tunes import FineTunes


def stacks_of(model: Model, params: Params) -> list[moe.Experts]:
  """Every layer's stacked experts.

  Raises:
    ValueError: if the model has none.
  """
  if model.config.num_experts is None or isinstance(model, FineTunes):
    raise ValueError("model must have stacked experts, to be merged")
  layers = params["params"]
  return [
    layers[f"layer_{layer}"]["experts"]["stack"]
    for layer in model.config.moe_layers
  ]


def dense(
  model: Model, params: Params, stacks: Sequence[moe.Experts]
) -> tuple[Model, Params]:
  """The dense model of layers with one merged expert each."""
  blocks = [
    moe.FeedForward(
      **{
        **vars(stack),
        **{
          name: getattr(stack, name)[0]
          for name in moe.parameters.ARRAYS
          if getattr(stack, name) is not None
        },
      }
    )
    for stack in stacks
  ]
  parts = [{"stack": block} for block in blocks]
  return models.dense_form(model), _replaced(model, params, parts, keep=False)


def grouped(
  model: Model,
  params: Params,
  stacks: Sequence[moe.Experts],
  labels: Sequence[np.ndarray],
) -> tuple[Model, Params]:
  """The model of G experts whose routers have an output for each of E.

  A token's choice among the E is made as before; the gates of experts that are
  one by now add up (`moe.Routes`).

  Args:
    model: of E experts.
    params: its parameters.
    stacks: of G experts, L of them.
    labels: [E] in [0, G), L of them.

  Raises:
    ValueError: if there are fewer groups than experts per token.
  """
  config = model.config
  num_groups = stacks[0].num_experts
  if num_groups < config.num_selected:
    raise ValueError(
      "num_groups must be 1 or at least num_selected, got "
      f"num_groups={num_groups}, num_selected={config.num_selected}"
    )
  parts = []
  for name, stack, label in zip(_names(model), stacks, labels, strict=True):
    before = params["params"][name]["experts"].get("routes")
    outputs = range(len(label)) if before is None else before.expert_of
    none = moe.NO_EXPERT
    expert_of = tuple(none if e == none else int(label[e]) for e in outputs)
    parts.append({"stack": stack, "routes": moe.Routes(expert_of)})
  config = dataclasses.replace(config, num_experts=num_groups)
  return dataclasses.replace(model, config=config), _replaced(
    model, params, parts
  )


def with_copies(model: Model, params: Params) -> tuple[Model, Params]:
  """A merged model with a copy of its expert at every output of the router.

  It computes the same and is as large as before merging: a model that its
  family's checkpoint format holds, as it holds no table of routes.

  Args:
    model: as `compress.MERGES` returns it for several groups.
    params: its parameters.

  Raises:
    ValueError: if its routers have no routes, or outputs that lead to none.
  """
  parts, width = [], None
  for name, stack in zip(_names(model), stacks_of(model, params), strict=True):
    routes = params["params"][name]["experts"].get("routes")
    if routes is None or moe.NO_EXPERT in routes.expert_of:
      raise ValueError(
        "a model with copies needs routes that all lead to experts, got "
        f"{routes} in {name}"
      )
    parts.append(
      {"stack": moe.take_experts(stack, routes.expert_of), "routes": None}
    )
    width = len(routes)
  config = dataclasses.replace(model.config, num_experts=width)
  return dataclasses.replace(model, config=config), _replaced(
    model, params, parts
  )


def with_constants(
  model: Model, params: Params, keep: Any, outputs: np.ndarray
) -> tuple[Model, Params]:
  """Drops experts, each for the constant vector that it gives on average.

  MoNE (2025): the router stays as it is. A token that would have gone to a
  dropped expert gets its constant, times the gate.

  Args:
    model: of E experts.
    params: its parameters.
    keep: [L, M], as for `prune`.
    outputs: [L, E, D], the mean output of every expert for its own tokens
      (`CalibrationStatistics.outputs` by `num_pairs`).

  Returns:
    The model of M experts a layer.

  Raises:
    ValueError: if the experts to keep or the outputs do not fit.
  """
  config, stacks = model.config, stacks_of(model, params)
  shape = len(stacks), config.num_experts, stacks[0].w_out.shape[-1]
  selection = ranking.check_selection(
    keep,
    num_layers=shape[0],
    num_experts=shape[1],
    num_selected=config.num_selected,
  )
  sizes = {len(row) for row in selection}
  if len(sizes) > 1:
    raise ValueError(
      "a model has one number of experts for all layers, got "
      f"{min(sizes)} to {max(sizes)}"
    )
  if np.shape(outputs) != shape or not np.all(np.isfinite(outputs)):
    raise ValueError(
      f"outputs must be finite [L, E, D] = {shape}, got {np.shape(outputs)}"
    )
  parts = []
  for stack, row, means in zip(stacks, selection, outputs, strict=True):
    expert_of = np.full(shape[1], moe.NO_EXPERT)
    expert_of[row] = np.arange(len(row))
    constants = np.array(means, np.float64)
    constants[row] = 0
    parts.append(
      {
        "stack": moe.take_experts(stack, row),
        "routes": moe.Routes(tuple(expert_of.tolist())),
        "constants": jnp.asarray(constants, stack.w_out.dtype),
      }
    )
  config = dataclasses.replace(config, num_experts=sizes.pop())
  return dataclasses.replace(model, config=config), _replaced(
    model, params, parts
  )


def replace_stacks(
  model: Model, params: Params, stacks: Sequence[moe.Experts]
) -> Params:
  """The parameters with other stacked experts, L of them."""
  return _replaced(model, params, [{"stack": stack} for stack in stacks])


def _names(model: Model) -> list[str]:
  return [f"layer_{layer}" for layer in model.config.moe_layers]


def _replaced(
  model: Model,
  params: Params,
  parts: Sequence[dict[str, object]],
  *,
  keep: bool = True,
) -> Params:
  """Parameters with other experts; a part of None is taken out."""
  layers = dict(params["params"])
  for name, part in zip(_names(model), parts, strict=True):
    experts = {**(layers[name]["experts"] if keep else {}), **part}
    experts = {key: one for key, one in experts.items() if one is not None}
    layers[name] = {**layers[name], "experts": experts}
  return {"params": layers}
