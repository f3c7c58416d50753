"""E variants of one dense model as one model with E experts.

What is an expert is what differs: attention, norms and embeddings too. Every
tensor of which there are several values is a `Variants` in the parameters' tree
of the dense model; all others are there once. Merging puts one array in each
one's place, and what comes out is the dense model.

Letters: E experts, L layers, U full values of a tensor, P ranks of all its
products together, M and N its axes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import kernels
from tanbr_jax.models.base import Params
from tanbr_jax.models.decoder import Decoder
from tanbr_jax.models.decoder_config import DecoderConfig

BASE = -1  # in the place of an expert's index: the model that all started from


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
  """What experts add to a tensor: products of two factors, side by side.

  Attributes:
    right: [P, N].
    left: [M, P]; None for a vector, to which each rank adds a row of `right`.
    ranks: (expert, rank) of each product, in the order of P; static.
    columns: begin and end of those of the tensor's last axis that it is for,
      None for all; static.
  """

  right: jax.Array
  left: jax.Array | None = None
  ranks: tuple[tuple[int, int], ...] = dataclasses.field(
    default=(), metadata={"static": True}
  )
  columns: tuple[int, int] | None = dataclasses.field(
    default=None, metadata={"static": True}
  )

  def sum(self, weights: jax.Array) -> jax.Array:
    """The weighted sum of all products, float32; one product of matrices."""
    experts, counts = np.array(self.ranks, np.int32).T
    of_rank = weights[np.repeat(experts, counts)].astype(jnp.float32)
    product = functools.partial(
      jnp.einsum, precision="highest", preferred_element_type=jnp.float32
    )
    right = self.right.astype(jnp.float32)
    if self.left is None:
      return product("p,pn->n", of_rank, right)
    left = self.left.astype(jnp.float32) * of_rank[None]
    return product("mp,pn->mn", left, right)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Variants:
  """One tensor of E models.

  Attributes:
    values: [U, ...], its different full values.
    experts: whose each of them is. `BASE`, which comes first, is of all experts
      that have none of their own; static.
    updates: what experts add to it.
  """

  values: jax.Array
  experts: tuple[int, ...] = dataclasses.field(metadata={"static": True})
  updates: tuple[LowRank, ...] = ()

  def merge(self, weights: jax.Array) -> jax.Array:
    """The weighted sum over the experts [E], of the values' shape and type.

    With a base it is the base plus the weighted sum of the differences from
    it, which for weights of sum 1 is the same.
    """
    has_base = self.experts[0] == BASE
    if has_base and len(self.experts) == 1:
      total = self.values[0]
    else:
      rows = weights[np.array(self.experts[has_base:], np.int32)]
      if has_base:
        rows = jnp.concatenate(((1 - jnp.sum(rows))[None], rows))
      total = kernels.weighted_sum(self.values, rows)
    if not self.updates:
      return total
    wide = total.astype(jnp.float32)
    for update in self.updates:
      begin, end = update.columns or (0, wide.shape[-1])
      wide = wide.at[..., begin:end].add(update.sum(weights))
    return wide.astype(total.dtype)


def merge(params: Params, weights: jax.Array) -> Params:
  """The dense parameters of a weighted sum.

  Args:
    params: of a model of fine-tunes.
    weights: [L, E]. What lies before the layers follows the first one's
      weights, what lies after them the last one's.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(
    params["params"], is_leaf=_is_variants
  )
  found = {i: leaf for i, (_, leaf) in enumerate(leaves) if _is_variants(leaf)}
  rows = [_layer_of(leaves[i][0][0].key, len(weights)) for i in found]
  # What all share stays out of the program, which would copy it.
  merged = _merge_all(list(found.values()), weights[np.array(rows, np.int32)])
  arrays = [leaf for _, leaf in leaves]
  for place, array in zip(found, merged, strict=True):
    arrays[place] = array
  return {"params": jax.tree.unflatten(structure, arrays)}


@jax.jit
def _merge_all(variants: list[Variants], weights: jax.Array) -> list[jax.Array]:
  return [one.merge(weights[i]) for i, one in enumerate(variants)]


def _is_variants(leaf: Any) -> bool:
  return isinstance(leaf, Variants)


def _layer_of(name: str, num_layers: int) -> int:
  if name == "embedding":
    return 0
  if name.startswith("layer_"):
    return int(name.removeprefix("layer_"))
  return num_layers - 1


def variants_bytes(params: Params) -> int | None:
  """The bytes of all that experts have of their own; None without any."""
  leaves = jax.tree.leaves(params, is_leaf=_is_variants)
  found = [leaf for leaf in leaves if _is_variants(leaf)]
  if not found:
    return None
  return sum(array.nbytes for array in jax.tree.leaves(found))


class Difference(NamedTuple):
  """How far each expert's tensor is from the base's.

  Attributes:
    key: the tensor's name in the checkpoint.
    relative: [E], the norm of the difference over the norm of the base's; 0
      where there is no difference.
  """

  key: str
  relative: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class FineTunes:
  """A `models.Model` of E fine-tunes or adapters of one dense model.

  It has no router, hence no forward of its own: `models.merge` makes the model
  that serves, with one-hot weights one of the experts.

  Attributes:
    dense: what merging makes, the base's model.
    names: of the E experts.
    differences: of all tensors that differ.
  """

  dense: Decoder
  names: tuple[str, ...]
  differences: tuple[Difference, ...] = dataclasses.field(
    default=(), compare=False, repr=False
  )

  @functools.cached_property
  def config(self) -> DecoderConfig:
    """The base's with E experts."""
    return dataclasses.replace(self.dense.config, num_experts=len(self.names))

  def init(self, key: jax.Array) -> NoReturn:
    """Refuses: fine-tunes are read.

    Raises:
      ValueError: always.
    """
    del key
    raise ValueError(
      "a model of fine-tunes is not drawn but read, by models.from_finetunes"
    )

  def apply(self, *args: Any, **kwargs: Any) -> NoReturn:
    """Refuses: there is no router.

    Raises:
      ValueError: always.
    """
    del args, kwargs
    raise ValueError(
      "a model of fine-tunes has no router and serves merged: models.merge("
      f"model, params, merge_weights) with [{len(self.names)}] weights, "
      "one-hot for one of them"
    )

  prefill = decode_step = apply


def difference_table(
  model: FineTunes, *, names: Sequence[str] | None = None
) -> str:
  """Returns the relative differences as text, a line for each kind of tensor.

      kind                                   math    code
      model.layers.*.mlp.down_proj.weight  0.0012  0.0030

  Args:
    model: of `models.from_finetunes`.
    names: heads of the columns; None for the model's.

  Returns:
    For every kind of tensor that differs the root of the mean square over the
    layers, and "-" where an expert has the base's tensors.
  """
  kinds: dict[str, list[tuple[float, ...]]] = {}
  for key, relative in model.differences:
    kind = ".".join("*" if p.isdigit() else p for p in key.split("."))
    kinds.setdefault(kind, []).append(relative)
  rows = [["kind", *(names or model.names)]]
  for kind, values in kinds.items():
    means = np.sqrt(np.mean(np.square(values), axis=0))
    rows.append([kind, *(f"{mean:.2g}" if mean else "-" for mean in means)])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(
      text.rjust(width) if i else text.ljust(width)
      for i, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    for row in rows
  )
