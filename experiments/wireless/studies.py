"""A model made ready for the study, and all that is served with it.

Letters: L layers, R realisations, E experts.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.wireless import radio, serving, subcarriers
from experiments.wireless.serving import Served, Text
from experiments.wireless.settings import RadioSettings, WirelessSettings
from tanbr_jax import data, models
from tanbr_jax.wireless import deviation, propagation, reroutes

STATISTICS = ("mean", "0.9", "max")


class Ready(NamedTuple):
  """A model with its tables and text.

  Attributes:
    settings: of the study.
    model: with experts.
    params: its parameters.
    text: to serve and to calibrate on.
    tables: by statistic.
    realised: the radio.
    skips: [L] mean size of an expert's output, the unit of budgets.
    sensitivities: [L] of the logits to a layer's deviation, on calibration
      text under random replacement.
  """

  settings: WirelessSettings
  model: models.Model
  params: models.Params
  text: Text
  tables: dict[str, deviation.Tables]
  realised: radio.Realisations
  skips: np.ndarray
  sensitivities: np.ndarray

  def serve(
    self,
    policy: str,
    *,
    share: float = 0.0,
    knob: float = 0.0,
    by_layer: bool = False,
    realised: radio.Realisations | None = None,
  ) -> Served:
    """Serves the test windows within a budget, in units of `skips`.

    With `by_layer` the same budget in the mean, less where it spreads more.
    """
    budgets = share * self.skips
    if by_layer:
      budgets = propagation.layer_budgets(budgets.mean(), self.sensitivities)
    return serving.serve(
      self.model,
      self.params,
      self.text.test,
      self.realised if realised is None else realised,
      policy,
      dissimilarity=self.table,
      budgets=budgets,
      knob=knob,
    )

  @property
  def table(self) -> np.ndarray:
    """[L, E, E + 1] that decides."""
    return self.tables[self.settings.sweep.table].values


def prepare(
  settings: WirelessSettings,
  model: models.Model,
  params: models.Params,
  text: Text,
) -> Ready:
  """Calibrates and draws the radio."""
  if settings.sweep.table not in STATISTICS:
    raise ValueError(
      f"table must be one of {STATISTICS}, got {settings.sweep.table!r}"
    )
  tables = deviation.calibrate(
    model, params, inputs_of(text.calibration), statistics=STATISTICS
  )
  realised = radio.realise(
    settings.radio,
    model,
    seed=settings.seed,
    realisations=settings.sweep.realisations,
    tokens=text.test.shape[1] - 1,
  )
  skips = tables["mean"].values[:, :, -1].mean(axis=1)
  # Any replacement shows how deviations spread; no radio is in the way of it.
  layers, experts = tables["mean"].values.shape[:2]
  few = inputs_of(text.calibration)[: settings.sweep.realisations]
  changed = reroutes.reroute(
    "random",
    dissimilarity=tables["mean"].values,
    marginal_j=np.ones(
      (layers, 1, experts, few.size * model.config.num_selected)
    ),
    budgets=100 * skips,
    knob=settings.seed,
  )
  spread = propagation.measure(model, params, few, changed)
  return Ready(
    settings,
    model,
    params,
    text,
    tables,
    realised,
    skips,
    spread.sensitivities,
  )


def inputs_of(windows: jax.Array) -> jax.Array:
  """The tokens [n, S] that are read of windows [n, S + 1]."""
  return data.read_windows(windows).inputs


def points(ready: Ready) -> Iterator[tuple[str, float, Callable[[], Served]]]:
  """Every policy at every budget or knob: name, value, and how it is served."""
  shares = ready.settings.sweep.budget_shares
  for share in shares:
    yield (
      "siftmoe",
      share,
      functools.partial(ready.serve, "siftmoe", share=share),
    )
  for share in shares:
    job = functools.partial(ready.serve, "siftmoe", share=share, by_layer=True)
    yield "siftmoe_by_layer", share, job
  # Neither the scores nor the subcarriers depend on the policy.
  scores = functools.cache(
    lambda: subcarriers.scores(
      ready.model, ready.params, inputs_of(ready.text.test)
    )
  )
  assigned = functools.cache(
    lambda quality: subcarriers.assign(
      ready.settings, ready.model, scores(), quality=quality
    )
  )

  def on_jesa(quality: float, policy: str, **options: Any) -> Served:
    """Serves on the subcarriers that JESA assigns for a quality."""
    settings = ready.settings.radio
    realised = _realise(ready, settings, assigned(quality))
    return ready.serve(policy, realised=realised, **options)

  knobs = ready.settings.knobs
  if "jesa" in knobs:
    # Of the highest quality: nearest to the router's own choice.
    jesa = functools.partial(on_jesa, max(knobs["jesa"]), "siftmoe")
    for share in shares:
      yield "siftmoe_on_jesa", share, functools.partial(jesa, share=share)
  for name, values in knobs.items():
    for value in values:
      job = functools.partial(ready.serve, name, knob=value)
      if name == "random":  # takes budgets, as SiftMoE does
        job = functools.partial(ready.serve, name, share=value)
      if name == "jesa":
        job = functools.partial(on_jesa, value, "des", knob=value)
      yield name, value, job


def _realise(
  ready: Ready,
  settings: RadioSettings,
  carriers: np.ndarray | None = None,
) -> radio.Realisations:
  return radio.realise(
    settings,
    ready.model,
    seed=ready.settings.seed,
    realisations=ready.settings.sweep.realisations,
    tokens=ready.text.test.shape[1] - 1,
    carriers=carriers,
  )


def links(
  ready: Ready,
) -> Iterator[tuple[str, str, float, Callable[[], Served]]]:
  """SiftMoE and practical top-K under other bandwidths and deadlines."""
  sweep = ready.settings.sweep
  for field, factors in (
    ("bandwidth_hz", sweep.bandwidth_factors),
    ("deadline_s", sweep.deadline_factors),
  ):
    for factor in factors:
      for name in ("siftmoe", "practical_top_k"):
        yield (
          field,
          name,
          getattr(ready.settings.radio, field) * factor,
          functools.partial(_under, ready, field, factor, name),
        )


def _under(ready: Ready, field: str, factor: float, policy: str) -> Served:
  settings = radio.scaled(ready.settings.radio, **{field: factor})
  return ready.serve(
    policy,
    share=ready.settings.sweep.link_share,
    realised=_realise(ready, settings),
  )
