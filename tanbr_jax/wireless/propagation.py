"""How deviations of layers add up to a deviation of the model's output.

Theorem 1 of the paper has the form |output's deviation| <= sum_l delta_l
prod_{m > l} kappa_m. [R] Here the products S_l are estimated from the model:
layer l alone is changed, and the output's deviation is divided by the layer's.
Norms are over all tokens of a sequence, since attention carries a token's
deviation to later ones. The sum is an estimate, as S_l is measured on some
changes and layers act on each other; how tight it is, is measured too.

Letters: L layers, B sequences, S tokens of one, N = B S, K experts per token.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import models
from tanbr_jax.moe.routing import Routing
from tanbr_jax.moe.seam import MoeInput
from tanbr_jax.wireless import deviation


class Propagation(NamedTuple):
  """Deviations of sequences.

  Attributes:
    layers: [L, B] each layer's own, on the unchanged model's states.
    alone: [L, B] the output's where that layer alone is changed.
    together: [B] the output's where all are.
  """

  layers: np.ndarray
  alone: np.ndarray
  together: np.ndarray

  @property
  def sensitivities(self) -> np.ndarray:
    """[L], S_l: the largest ratio over sequences; 0 for unchanged layers."""
    ratio = np.divide(
      self.alone,
      self.layers,
      out=np.zeros_like(self.alone),
      where=self.layers > 0,
    )
    return ratio.max(axis=1)


def measure(
  model: models.Model,
  params: models.Params,
  input_ids: jax.Array,
  reroute: Partial,
) -> Propagation:
  """Changes each layer alone, then all, and compares the logits.

  Args:
    model: with experts.
    params: its parameters.
    input_ids: [B, S].
    reroute: the change, of the seam.
  """
  num_layers = len(model.config.moe_layers)
  experts = model.config.num_experts
  nothing = jnp.zeros((num_layers, experts, experts + 1), jnp.float32)
  observe = deviation.observe_deviations(reroute, nothing)
  run = functools.partial(_logits, model, params, input_ids)
  plain, seen = _seen(model, params, input_ids, observe)
  batch = input_ids.shape[0]
  squares = jnp.square(seen.measured).reshape(num_layers, batch, -1)
  flags = np.eye(num_layers, dtype=bool)
  alone = [_norms(plain, run(only(reroute, jnp.asarray(row)))) for row in flags]
  return Propagation(
    layers=np.asarray(jnp.sqrt(squares.sum(axis=2)), np.float64),
    alone=np.stack(alone),
    together=together(model, params, input_ids, reroute),
  )


def together(
  model: models.Model,
  params: models.Params,
  input_ids: jax.Array,
  reroute: Partial,
) -> np.ndarray:
  """[B] norms of the change of a sequence's logits, all layers changed."""
  run = functools.partial(_logits, model, params, input_ids)
  return _norms(run(None), run(reroute))


def only(reroute: Partial, is_changed: jax.Array) -> Partial:
  """A reroute of the layers [L] bool that are marked, the router elsewhere."""
  return Partial(_only, is_changed, reroute)


def _only(is_changed: jax.Array, reroute: Partial, layer: MoeInput) -> Routing:
  changed = reroute(layer)
  return jax.tree.map(
    lambda new, old: jnp.where(is_changed, new, old.astype(new.dtype)),
    changed,
    layer.routing,
  )


@functools.partial(jax.jit, static_argnums=0)
def _logits(
  model: models.Model,
  params: models.Params,
  input_ids: jax.Array,
  reroute: Partial,
) -> jax.Array:
  return model.apply(params, input_ids, reroute=reroute)


@functools.partial(jax.jit, static_argnums=0)
def _seen(
  model: models.Model,
  params: models.Params,
  input_ids: jax.Array,
  observe: Partial,
) -> tuple[jax.Array, deviation.Deviations]:
  return model.apply(params, input_ids, observe=observe)


def _norms(before: jax.Array, after: jax.Array) -> np.ndarray:
  change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
  return np.sqrt(np.square(change).sum(axis=(1, 2)))


def layer_budgets(total: float, sensitivities: np.ndarray) -> np.ndarray:
  """Budgets [L] whose parts of the output's estimate are alike.

  `budget_l S_l` is the same for all layers and the mean budget is `total`, so
  that layers whose deviation grows more on its way get less.

  Args:
    total: the mean budget of a layer, at least 0.
    sensitivities: [L] positive.

  Raises:
    ValueError: if the total is negative or a sensitivity not positive.
  """
  if not total >= 0:
    raise ValueError(f"total must be at least 0, got total={total}")
  found = np.asarray(sensitivities, np.float64)
  if not (found > 0).all():
    raise ValueError(f"sensitivities must be positive, got {found.tolist()}")
  inverse = 1 / found
  return total * inverse / inverse.mean()
