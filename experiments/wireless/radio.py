"""Realisations of the nodes' places and links, and what they cost.

Letters: L layers, R realisations, E experts, M pairs.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from experiments.wireless.settings import RadioSettings
from tanbr_jax import models
from tanbr_jax.wireless import (
  channels,
  fading,
  layer_energy,
  mobility,
  units,
)
from tanbr_jax.wireless.layer_energy import LayerCosts, Link, Nodes


class Realisations(NamedTuple):
  """The radio of all layers.

  Attributes:
    costs: R for each of L layers.
    latency_s: [L, R, E] of one state at the largest power.
  """

  costs: list[list[LayerCosts]]
  latency_s: np.ndarray

  @property
  def marginal_j(self) -> np.ndarray:
    """[L, R, E, M]."""
    return np.array([[one.marginal_j for one in row] for row in self.costs])

  def repeated(self, times: int) -> "Realisations":
    """Each realisation as often, one after the other."""
    costs = [[one for one in row for _ in range(times)] for row in self.costs]
    return Realisations(costs, np.repeat(self.latency_s, times, axis=1))


def make_link(radio: RadioSettings, model: models.Model) -> Link:
  """The link of a model's states."""
  return Link(
    state_bits=model.config.model_dim * radio.bits_per_value,
    bandwidth_hz=radio.bandwidth_hz,
    deadline_s=radio.deadline_s,
    noise_w_per_hz=float(units.dbm_to_w(radio.noise_dbm_per_hz)),
    helper_power_w=float(units.dbm_to_w(radio.helper_power_dbm)),
    most_power_w=float(units.dbm_to_w(radio.most_power_dbm)),
    counts_downlink=radio.counts_downlink,
  )


def make_nodes(radio: RadioSettings, num_experts: int) -> Nodes:
  """The first experts of a layer on the user, the others on helpers. [R]."""
  is_local = np.arange(num_experts) < radio.num_local
  return Nodes(
    is_local=is_local,
    load_s=np.full(num_experts, radio.load_s),
    compute_s=np.full(num_experts, radio.compute_s),
    load_j=np.zeros(num_experts),
    compute_j=np.where(is_local, radio.local_compute_j, 0.0),
  )


def draw_gains(
  radio: RadioSettings,
  *,
  seed: int,
  realisations: int,
  layers: int,
  experts: int,
) -> np.ndarray:
  """Power gains [R, L, E]: walkers in a disc, fading drawn for each layer."""
  return draw_carriers(
    radio, seed=seed, realisations=realisations, layers=layers, experts=experts
  ).diagonal(axis1=2, axis2=3)


def draw_carriers(
  radio: RadioSettings,
  *,
  seed: int,
  realisations: int,
  layers: int,
  experts: int,
) -> np.ndarray:
  """Gains [R, L, E, E] of experts on subcarriers, a fade each. [R].

  As many subcarriers as experts, each of a link's bandwidth: an expert's own is
  on the diagonal, and is all that there is but for JESA, which assigns them.
  """
  rng = np.random.default_rng(seed)
  places = mobility.random_waypoint(
    rng,
    num_nodes=experts,
    num_times=realisations,
    interval_s=60.0,
    radius_m=radio.radius_m,
  )
  distance = mobility.distances_m(places)
  path = channels.path_gain(distance, exponent=radio.path_loss_exponent)
  fades = fading.gamma(radio.fading_shape).draw(
    rng, (realisations, layers, experts, experts)
  )
  return path[:, None, :, None] * fades


def realise(
  radio: RadioSettings,
  model: models.Model,
  *,
  seed: int,
  realisations: int,
  tokens: int,
  carriers: np.ndarray | None = None,
) -> Realisations:
  """Costs of R realisations of all layers, for sequences of so many tokens.

  With `carriers` [R, L, E] each expert has that subcarrier, else its own.
  """
  layers, experts = len(model.config.moe_layers), model.config.num_experts
  nodes, link = make_nodes(radio, experts), make_link(radio, model)
  gains = draw_carriers(
    radio, seed=seed, realisations=realisations, layers=layers, experts=experts
  )
  if carriers is None:
    carriers = np.broadcast_to(np.arange(experts), gains.shape[:3])
  gains = np.take_along_axis(gains, carriers[..., None], axis=3)[..., 0]
  most = tokens * model.config.num_selected
  costs, latency = [], np.empty((layers, realisations, experts))
  for layer in range(layers):
    costs.append(
      [
        layer_energy.layer_costs(nodes, link, gain=one[layer], most_states=most)
        for one in gains
      ]
    )
    for index, one in enumerate(gains):
      latency[layer, index] = layer_energy.latency_s(
        nodes, link, gain=one[layer], loads=np.ones(experts)
      )
  return Realisations(costs, latency)


def scaled(radio: RadioSettings, **factors: float) -> RadioSettings:
  """Settings with fields multiplied."""
  changes = {name: getattr(radio, name) * by for name, by in factors.items()}
  return dataclasses.replace(radio, **changes)
