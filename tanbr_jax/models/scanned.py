"""A decoder whose layers are one compiled loop, for training and scoring.

`Decoder` unrolls its layers, which decodes fastest; a deep one then takes
minutes to compile with its derivatives on a GPU. Here all layers are stacked
inside the program, which costs a copy of them, and compiled once; so are the
merges of all layers. Dense layers that come first are a loop of their own,
which no derivative in merge weights goes through.

Letters: E experts, L layers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tanbr_jax import moe
from tanbr_jax.models.base import Observe, Params, Reroute
from tanbr_jax.models.decoder import Cache, Decoder
from tanbr_jax.models.decoder_layer import run_layer, scaled
from tanbr_jax.models.decoder_norm import norm
from tanbr_jax.moe import seam
from tanbr_jax.moe.parameters import ARRAYS


@dataclasses.dataclass(frozen=True)
class ScannedDecoder(Decoder):
  """A `Decoder` of layers that are alike; its parameters are a `Decoder`'s."""

  def __post_init__(self) -> None:
    """Refuses layers that differ.

    Raises:
      ValueError: if a layer of one block is not among the first, or a layer
        has another window.
    """
    super().__post_init__()
    config = self.config
    windows = {config.attention.window_of(i) for i in range(config.num_layers)}
    first = tuple(range(len(config.dense_layers)))
    if config.dense_layers != first or len(windows) > 1:
      raise ValueError(
        "layers must be alike to be scanned, but for dense ones at first, got "
        f"dense_layers={config.dense_layers}, windows={windows}"
      )

  def merge_layers(
    self, stacks: list[moe.Experts], weights: jax.Array
  ) -> list[moe.FeedForward]:
    """The blocks of experts averaged with weights [L, E], in one pass."""

    def average(name: str) -> jax.Array | None:
      if getattr(stacks[0], name) is None:
        return None
      leaf = jnp.stack([getattr(stack, name) for stack in stacks])
      return jax.lax.platform_dependent(
        leaf, weights, cpu=_add, default=_sum
      ).astype(leaf.dtype)

    arrays = {name: average(name) for name in ARRAYS}
    return [
      moe.FeedForward(
        **{k: None if a is None else a[index] for k, a in arrays.items()},
        shared=stack.shared,
        shared_gate=stack.shared_gate,
        activation=stack.activation,
      )
      for index, stack in enumerate(stacks)
    ]

  def _run(
    self,
    params: Params,
    input_ids: jax.Array,
    cache: Cache | None,
    token_mask: jax.Array | None,
    reroute: Reroute | None,
    observe: Observe | None,
  ) -> tuple[jax.Array, Cache | None, Any]:
    if cache is not None:
      return super()._run(
        params, input_ids, cache, token_mask, reroute, observe
      )
    config, tree = self.config, params["params"]
    seam.check_seam(
      len(config.moe_layers),
      config.num_experts,
      reroute=reroute,
      observe=observe,
    )
    layers = [tree[f"layer_{index}"] for index in range(config.num_layers)]
    num_dense = len(config.dense_layers)

    def run(x: jax.Array, part: Any) -> tuple[jax.Array, Any]:
      layer, reroute, observe = part
      x, _, seen = run_layer(
        layer,
        x,
        jnp.zeros((), jnp.int32),
        None,
        token_mask,
        token_mask,
        reroute,
        observe,
        config=config,
        implementation=self.implementation,
        sharding=self.sharding,
        window=config.attention.window_of(0),
      )
      return x, seen

    x = scaled(tree["embedding"][input_ids], config.embedding_scale)
    if num_dense:
      x, _ = jax.lax.scan(run, x, (_stack(layers[:num_dense]), None, None))
    seen = None
    if layers := layers[num_dense:]:
      x, seen = jax.lax.scan(run, x, (_stack(layers), reroute, observe))
    return norm(tree, "final_norm", x, config), None, seen


def scanned(model: Decoder) -> ScannedDecoder:
  """The same model as one loop; parameters stay as they are."""
  fields = (field.name for field in dataclasses.fields(model))
  return ScannedDecoder(**{name: getattr(model, name) for name in fields})


def _sum(leaf: jax.Array, weights: jax.Array) -> jax.Array:
  """[L, ...] of experts [L, E, ...]: one pass, of all that `vmap` asks for."""
  weights = weights.reshape(*weights.shape, *[1] * (leaf.ndim - 2))
  return jnp.sum(weights.astype(jnp.float32) * leaf.astype(jnp.float32), axis=1)


def _add(leaf: jax.Array, weights: jax.Array) -> jax.Array:
  """The same by additions of whole experts, which a CPU makes faster."""
  parts = [
    _sum(leaf[:, e : e + 1], weights[:, e : e + 1])
    for e in range(leaf.shape[1])
  ]
  return sum(parts[1:], start=parts[0])


def _stack(trees: list[Any]) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
