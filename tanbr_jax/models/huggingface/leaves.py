"""The leaves of a model's parameters by name: "layer_0/attention/output"."""

from typing import Any

import jax

from tanbr_jax.models.base import Params
from tanbr_jax.models.decoder import Decoder


def shapes_of(model: Decoder) -> tuple[dict[str, Any], Any]:
  """The shape and type of every leaf by name, and the tree's structure."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  tree = jax.eval_shape(model.init, key)
  return by_name(tree), jax.tree.structure(tree)


def by_name(params: Params) -> dict[str, Any]:
  """Every leaf of a model's parameters by name, in the tree's order."""
  found, _ = jax.tree_util.tree_flatten_with_path(params["params"])
  return {"/".join(_name(part) for part in path): leaf for path, leaf in found}


def _name(part: Any) -> str:
  return part.key if isinstance(part, jax.tree_util.DictKey) else part.name


def is_expert(name: str, model: Decoder) -> bool:
  """Whether a leaf has a leading axis of experts."""
  is_stack = "/experts/stack/" in name and "/shared" not in name
  layer = name.split("/")[0].removeprefix("layer_")
  return (
    model.config.num_experts is not None
    and is_stack
    and int(layer) in model.config.moe_layers
  )
