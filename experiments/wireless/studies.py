"""The parts of the study; each returns flat keys and arrays over realisations.

Letters: L layers, R realisations, E experts, K experts per token.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.wireless import radio, serving
from experiments.wireless.serving import Served, Text
from experiments.wireless.settings import WirelessSettings
from tanbr_jax import models, wireless
from tanbr_jax.moe.seam import MoeInput, MoeOutput
from tanbr_jax.wireless import (
  deviation,
  fading,
  fast_fading,
  layer_energy,
  mixed_integer,
  propagation,
  reroutes,
)

STATISTICS = ("mean", "0.9", "max")
# Experts, experts per token, state bits, bandwidth and deadline of the paper's
# set-ups: Switch-base-8, Mixtral-8x7B, GPT-OSS-20B; 16 bits a value.
DRAWN = (
  (8, 1, 768 * 16, 1e6, 0.7),
  (8, 2, 4096 * 16, 2e6, 0.074),
  (32, 4, 2880 * 16, 0.8e6, 0.35),
)


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
    model, params, _inputs(text.calibration), statistics=STATISTICS
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
  few = _inputs(text.calibration)[: settings.sweep.realisations]
  changed = reroutes.reroute(
    "random",
    dissimilarity=tables["mean"].values,
    marginal_j=np.ones(
      (layers, 1, experts, few.size * model.config.num_selected)
    ),
    budgets=settings.sweep.link_share * skips,
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


def _inputs(windows: jax.Array) -> jax.Array:
  return serving.data.read_windows(windows).inputs


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
  for name, knobs in ready.settings.knobs.items():
    # Random replacement takes budgets, as SiftMoE does.
    field = "share" if name == "random" else "knob"
    for value in knobs:
      yield (
        name,
        value,
        functools.partial(ready.serve, name, **{field: value}),
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
  realised = radio.realise(
    settings,
    ready.model,
    seed=ready.settings.seed,
    realisations=ready.settings.sweep.realisations,
    tokens=ready.text.test.shape[1] - 1,
  )
  share = ready.settings.sweep.link_share
  return ready.serve(policy, share=share, realised=realised)


def fast(settings: WirelessSettings) -> list[dict[str, float]]:
  """Adaptive against uniform bits a slot, by slots and load. No model.

  Energies are relative to uniform bits, which in expectation is also slow
  fading at the same rate. Bands are over realisations of 200 transmissions.
  """
  one = fading.gamma(settings.radio.fading_shape)
  chain = fast_fading.independent(one, num_levels=32)
  rows = []
  rng = np.random.default_rng(settings.seed)
  for slots in settings.sweep.num_slots:
    for load in settings.sweep.slot_bits_per_hz:
      units = 8 * slots
      cost = np.expm1(np.arange(units + 1) * load / 8 * np.log(2))
      best = fast_fading.solve(cost, chain, num_slots=slots)
      send = fast_fading.uniform_bits(
        num_slots=slots, num_levels=len(chain.gains), num_units=units
      )
      even = fast_fading.evaluate(send, cost, chain)
      drawn = one.draw(rng, (settings.sweep.realisations, 200, slots))
      ratios = []
      for gains in drawn:
        took = [
          fast_fading.simulate(which, cost, one, gains, num_units=units)[0]
          for which in (best, even)
        ]
        ratios.append(took[0].mean() / took[1].mean())
      rows.append(
        {
          "slots": slots,
          "bits_per_hz": load,
          "expected": float(best.expected_j[units] / even.expected_j[units]),
          "drawn": np.array(ratios),
        }
      )
  return rows


class Bounds(NamedTuple):
  """Deviations of tokens under SiftMoE at one budget, all layers.

  Attributes:
    measured: [L, N].
    bound: [L, N].
    estimates: by statistic, [L, N].
    predicted: [R], the sum over layers by the calibrated sensitivities.
    together: [R], the logits' deviations.
  """

  measured: np.ndarray
  bound: np.ndarray
  estimates: dict[str, np.ndarray]
  predicted: np.ndarray
  together: np.ndarray


def bounds(ready: Ready) -> Bounds:
  """How far outputs move, and what was said before; a window a realisation."""
  each = len(ready.text.test) // len(ready.realised.costs[0])
  reroute = reroutes.reroute(
    "siftmoe",
    dissimilarity=ready.table,
    marginal_j=ready.realised.marginal_j,
    budgets=ready.settings.sweep.link_share * ready.skips,
  )
  ids = _inputs(ready.text.test[::each])
  apply = jax.jit(
    lambda params, observe: ready.model.apply(params, ids, observe=observe)[1]
  )
  estimates, seen = {}, None
  for name, table in ready.tables.items():
    seen = apply(
      ready.params, deviation.observe_deviations(reroute, table.values)
    )
    estimates[name] = np.asarray(seen.estimate)
  measured = np.asarray(seen.measured, np.float64)
  squares = np.square(measured).reshape(len(measured), len(ids), -1)
  layers = np.sqrt(squares.sum(axis=2))
  return Bounds(
    measured,
    np.asarray(seen.bound),
    estimates,
    ready.sensitivities @ layers,
    propagation.together(ready.model, ready.params, ids, reroute),
  )


def bound_figures(found: Bounds) -> dict[str, float]:
  """Coverage and tightness as flat keys."""
  flat = {}
  moved = found.measured > 0
  if moved.any():
    ratio = found.measured[moved] / found.bound[moved]
    flat["bound/median_tightness"] = float(np.median(ratio))
    flat["bound/largest_ratio"] = float(ratio.max())
  for name, estimate in found.estimates.items():
    flat[f"bound/coverage_{name}"] = deviation.coverage(
      found.measured, estimate
    )
  is_moved = found.predicted > 0
  if is_moved.any():
    ratio = found.together[is_moved] / found.predicted[is_moved]
    flat["bound/propagated_median"] = float(np.median(ratio))
    flat["bound/propagated_largest"] = float(ratio.max())
  return flat


def timing(ready: Ready) -> list[dict[str, Any]]:
  """Milliseconds of a decision, and its gap, on a layer of the model and more.

  Besides the model's own layers: drawn layers of 64 tokens with 8 experts and
  K = 1, and with 32 experts and K = 4, the sizes of Switch and GPT-OSS.
  """
  settings = ready.settings
  rng = np.random.default_rng(settings.seed)
  seen = jax.jit(
    lambda params, ids: ready.model.apply(
      params, ids, observe=Partial(_routing, ())
    )[1]
  )(ready.params, _inputs(ready.text.test[:1]))
  gates, ids = (np.asarray(part) for part in seen)
  share = settings.sweep.link_share
  cases = [
    (
      f"{settings.source.num_experts} experts, K={ids.shape[2]}, the model's",
      [
        (
          gates[layer].astype(np.float64),
          ids[layer],
          ready.table[layer],
          ready.realised.costs[layer][0].marginal_j,
          share * ready.skips[layer],
        )
        for layer in range(len(ids))
      ],
    )
  ]
  for shape in DRAWN:
    layers = [
      drawn_layer(rng, settings, *shape)
      for _ in range(settings.sweep.timing_repeats)
    ]
    cases.append((f"{shape[0]} experts, K={shape[1]}, drawn", layers))
  return [timed(name, layers) for name, layers in cases]


def _routing(
  tree: tuple[()], layer: MoeInput, output: MoeOutput
) -> tuple[jax.Array, jax.Array]:
  del tree, output
  return layer.routing.gates.astype(jnp.float32), layer.routing.expert_ids


def drawn_layer(
  rng: np.random.Generator,
  settings: WirelessSettings,
  experts: int,
  slots: int,
  state_bits: float,
  bandwidth_hz: float,
  deadline_s: float,
  *,
  tokens: int = 64,
) -> tuple[Any, ...]:
  """A layer of drawn gates and experts under the radio of a set-up. [R].

  Its helpers have no load and no compute time, and the uplink's energy alone
  counts, as nothing else is as convex.
  """
  gates = rng.dirichlet(np.ones(slots), tokens)
  ids = np.argsort(rng.gumbel(size=(tokens, experts)), axis=1)[:, :slots]
  # Outputs of experts as random directions around a common one.
  outputs = rng.normal(size=(experts, 16)) + 1.5 * rng.normal(size=(1, 16))
  outputs = np.concatenate([outputs, np.zeros((1, 16))])
  table = np.linalg.norm(outputs[:-1, None] - outputs[None], axis=2)
  gains = radio.draw_gains(
    settings.radio,
    seed=int(rng.integers(2**31)),
    realisations=1,
    layers=1,
    experts=experts,
  )[0, 0]
  nothing = np.zeros(experts)
  costs = layer_energy.layer_costs(
    layer_energy.Nodes(
      is_local=nothing > 0,
      load_s=nothing,
      compute_s=nothing,
      load_j=nothing,
      compute_j=nothing,
    ),
    layer_energy.Link(
      state_bits=state_bits,
      bandwidth_hz=bandwidth_hz,
      deadline_s=deadline_s,
      counts_downlink=False,
    ),
    gain=gains,
    most_states=tokens * slots,
  )
  budget = 0.2 * table[:, -1].mean()
  return gates, ids, table, costs.marginal_j, budget


def timed(name: str, layers: list[tuple[Any, ...]]) -> dict[str, Any]:
  """Decides every layer twice and times the second time."""
  took, gaps, methods = [], [], set()
  for *arguments, budget in layers:
    for _ in range(2):  # the second call is timed
      start = time.perf_counter()
      found = wireless.solve_prefill(*arguments, budget=budget)
      seconds = time.perf_counter() - start
    took.append(1e3 * seconds)
    gaps.append(1 - found.lower_bound_j / max(found.energy_j, 1e-300))
    methods.add(found.method)
  return {
    "case": name,
    "method": ", ".join(sorted(methods)),
    "median_ms": float(np.median(took)),
    "largest_ms": float(np.max(took)),
    "mean_gap": float(np.mean(gaps)),
    "largest_gap": float(np.max(gaps)),
  }


def proven_gap(layer: tuple[Any, ...], *, most_seconds: float) -> float:
  """The gap of a layer against HiGHS's own bound."""
  *arguments, budget = layer
  found = wireless.solve_prefill(*arguments, budget=budget)
  exact = mixed_integer.prefill_milp(
    *arguments, budget=budget, most_seconds=most_seconds
  )
  bound = max(exact.lower_bound_j, found.lower_bound_j)
  return 1 - bound / found.energy_j
