"""JESA in the study: who sends on which subcarrier, before a model is served.

The method chooses experts and subcarriers by turns (`energy_search`). Here the
subcarriers of a layer are chosen for the scores of the unchanged model's router
and then hold for the prefills of a realisation, which are served by DES. [R]

Letters: L layers, R realisations, N tokens of all, E experts, K experts per
token.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.wireless import radio
from experiments.wireless.settings import WirelessSettings
from tanbr_jax import models
from tanbr_jax.moe.seam import MoeInput, MoeOutput
from tanbr_jax.wireless import energy_search, layer_energy
from tanbr_jax.wireless.instance import InfeasibleError


def scores(
  model: models.Model, params: models.Params, input_ids: jax.Array
) -> np.ndarray:
  """[L, N, E] probabilities relative to the sum of the token's K largest."""
  found = np.asarray(_probabilities(model, params, input_ids), dtype=np.float64)
  largest = np.sort(found, axis=2)[:, :, -model.config.num_selected :]
  return found / largest.sum(axis=2, keepdims=True)


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(
  model: models.Model, params: models.Params, input_ids: jax.Array
) -> jax.Array:
  return model.apply(params, input_ids, observe=Partial(_observe, ()))[1]


def _observe(tree: tuple[()], layer: MoeInput, output: MoeOutput) -> jax.Array:
  del tree, output
  return layer.routing.probabilities.astype(jnp.float32)


def assign(
  settings: WirelessSettings,
  model: models.Model,
  found: np.ndarray,
  *,
  quality: float,
) -> np.ndarray:
  """Subcarriers [R, L, E] by JESA for scores [L, N, E].

  Where the quality cannot be reached the experts keep their own.
  """
  layers, tokens, experts = found.shape
  realisations = settings.sweep.realisations
  gains = radio.draw_carriers(
    settings.radio,
    seed=settings.seed,
    realisations=realisations,
    layers=layers,
    experts=experts,
  )
  nodes = radio.make_nodes(settings.radio, experts)
  link = radio.make_link(settings.radio, model)
  carriers = np.tile(np.arange(experts), (realisations, layers, 1))
  by_realisation = found.reshape(layers, realisations, -1, experts)
  for index, layer in np.ndindex(realisations, layers):
    # One state's energy by expert and subcarrier.
    energy = [
      layer_energy.layer_costs(
        nodes, link, gain=column, most_states=1
      ).marginal_j[:, 0]
      for column in gains[index, layer].T
    ]
    try:
      _, carriers[index, layer] = energy_search.with_subcarriers(
        by_realisation[layer, index],
        np.stack(energy, axis=1),
        quality=quality,
        most=model.config.num_selected,
      )
    except InfeasibleError:
      continue
  return carriers
