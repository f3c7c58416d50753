"""Slots of requests served over radio: a learner and SiftMoE at once. [R].

A slot draws requests as `moe_slots` does and, for each of them, one of C
realisations of the radio. SiftMoE's choice is made inside the compiled program
at fixed prices, an expert's mean energy at an even load; what comes late is
lost; and the energy is looked up by the loads that came about. A request's
reward is its accuracy less `joules_weight` times its joules a token. What a
point of the simplex decides:

- `act="budgets"`: how a budget of deviations is shared out over the layers (the
  simplex has L + 1 corners): layer l's is `share * L * x_l` in units of the
  mean size of its experts' outputs, and what the last corner has is not spent.
  SiftMoE alone has the same weight for all layers.
- `act="merge_weights"`: the user holds the experts' average with these weights
  (E corners), and what SiftMoE would skip goes to it. How far expert i is from
  it is estimated by `sum_j x_j d[i, j]`, so that good weights let more tokens
  stay. With `share = inf` every token does: merging alone.

Letters: V tasks, E experts, K experts per token, L layers, B requests, S tokens
of one, N = B S, C realisations, M pairs at most, A corners, G candidates.
"""

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import data, models, moe
from tanbr_jax.bandits.base import Context, Feedback
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import Count, NonNegative, Range
from tanbr_jax.environments.base import Environment, Outcome
from tanbr_jax.environments.mixes import MixProcess, check_mix_length
from tanbr_jax.environments.moe_slots import draw_requests
from tanbr_jax.environments.oracle.table import OracleTable, choose
from tanbr_jax.environments.requests import count_tasks
from tanbr_jax.moe.routing import NO_EXPERT, Routing
from tanbr_jax.moe.seam import MoeInput, MoeOutput

ACTS = ("budgets", "merge_weights")


class Radio(NamedTuple):
  """The radio and the table of a model.

  Attributes:
    energy_j: [C, L, E, M + 1] joules by load, inf = cannot.
    dissimilarity: [L, E, E + 1].
    local_j: [] joules of one state at the user's average of the experts.
  """

  energy_j: jax.Array
  dissimilarity: jax.Array
  local_j: jax.Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Settings:
  model: models.Model
  act: str
  requests: int
  context: int


class _Arrays(NamedTuple):
  params: models.Params
  text: data.TaskText
  radio: Radio
  task_mix: MixProcess
  table: OracleTable | None
  share: jax.Array
  joules_weight: jax.Array


class _Layer(NamedTuple):
  """What the reroute knows of a layer; E + 1 columns."""

  dissimilarity: jax.Array  # [E, E + 1], the last is what stands for skipping
  energy_j: jax.Array  # [B, E, M + 1]
  budget: jax.Array  # []
  last_j: jax.Array  # [] of a state that the last column serves


@ranges.checked
def wireless_slots(
  model: models.Model,
  params: models.Params,
  text: data.TaskText,
  radio: Radio,
  *,
  task_mix: MixProcess,
  act: str = "budgets",
  share: Annotated[float, Range(0, ends="[]")] = 0.2,
  joules_weight: NonNegative = 10.0,
  requests_per_slot: Count = 8,
  context: int | None = None,
  candidates: jax.Array | None = None,
  windows: jax.Array | None = None,
) -> Environment:
  """Requests over radio; see the module.

  `Outcome.optimal_reward` is that of the best of `candidates` for the true mix,
  measured beforehand on `windows` under every realisation: the regret is
  against it, and may be negative.

  Args:
    model: with experts, K at most 2; for "merge_weights" a `ByteLM`.
    params: its parameters.
    text: of V tasks.
    radio: see `Radio`.
    task_mix: the process of task mixes, shown as it is.
    act: what the weights decide, one of `ACTS`.
    share: the mean budget of a layer in units of its experts' mean outputs,
      where the last corner of "budgets" has no weight.
    joules_weight: what a joule a token costs, in units of accuracy.
    requests_per_slot: B.
    context: S; None for the model's own.
    candidates: [G, A] points to compare with; None for the uniform one and the
      corners.
    windows: [V, n, S + 1] integer tokens to measure them on.

  Returns:
    An `Environment` of the mirror's usual kind.

  Raises:
    ValueError: a name is unknown or a shape does not fit.
  """
  context = context or model.config.context
  num_layers = len(model.config.moe_layers)
  num_experts = model.config.num_experts
  check_choice("act", act, ACTS)
  if num_experts is None or model.config.num_selected > 2:
    raise ValueError(
      "wireless_slots needs experts, at most 2 a token, got num_experts="
      f"{num_experts}, num_selected={model.config.num_selected}"
    )
  if act == "merge_weights" and not isinstance(model, models.ByteLM):
    raise ValueError(
      f"act='merge_weights' needs a ByteLM, got {type(model).__name__}"
    )
  pairs = context * model.config.num_selected
  shape = (num_layers, num_experts, pairs + 1)
  table = (num_layers, num_experts, num_experts + 1)
  if radio.energy_j.shape[1:] != shape or radio.dissimilarity.shape != table:
    raise ValueError(
      "radio must be of the model: energy_j [C, L, E, S K + 1] = [C, "
      f"{shape}], dissimilarity {table}, got {radio.energy_j.shape} and "
      f"{radio.dissimilarity.shape}"
    )
  check_mix_length(task_mix, text.lengths.shape[0])
  settings = _Settings(model, act, requests_per_slot, context)
  arrays = _Arrays(
    params,
    text,
    radio,
    task_mix,
    None,
    jnp.float32(share),
    jnp.float32(joules_weight),
  )
  corners = num_layers + 1 if act == "budgets" else num_experts
  if candidates is None:
    uniform = jnp.full((1, corners), 1 / corners, jnp.float32)
    candidates = jnp.concatenate([uniform, jnp.eye(corners, dtype=jnp.float32)])
  if windows is None:
    windows = data.evaluation_windows(text, 2, context + 1)
  arrays = arrays._replace(
    table=_measure(settings, arrays, candidates, windows)
  )
  return Environment(
    Partial(_init, task_mix),
    Partial(_context, task_mix),
    Partial(_step, settings, arrays),
  )


def _init(task_mix: MixProcess, key: jax.Array) -> Any:
  return task_mix.init(key)


def _context(task_mix: MixProcess, state: Any) -> Context:
  return Context(task_mix.mix(state))


def _step(
  settings: _Settings,
  arrays: _Arrays,
  key: jax.Array,
  state: Any,
  weights: jax.Array,
) -> tuple[Feedback, Outcome, Any]:
  request_key, mix_key = jax.random.split(key)
  mix = arrays.task_mix.mix(state)
  tasks, windows = draw_requests(
    request_key,
    arrays.text,
    mix,
    requests=settings.requests,
    context=settings.context,
  )
  realisations = jax.random.randint(
    jax.random.fold_in(key, 2),  # splitting took 0 and 1
    (settings.requests,),
    0,
    arrays.radio.energy_j.shape[0],
    jnp.int32,
  )
  rewards = serve(settings, arrays, windows, realisations, weights)[0]
  count = count_tasks(tasks, num_tasks=mix.shape[0])
  is_task = tasks[:, None] == jnp.arange(mix.shape[0], dtype=jnp.int32)[None]
  total = jnp.sum(jnp.where(is_task, rewards[:, None], 0.0), axis=0)
  seen = jnp.maximum(count, 1).astype(jnp.float32)
  best_weights, best_reward = choose(arrays.table, mix)
  reward = jnp.mean(rewards)
  outcome = Outcome(mix, reward, reward, best_reward, best_weights)
  feedback = Feedback(total / seen, count)
  return feedback, outcome, arrays.task_mix.step(mix_key, state)


def serve(
  settings: _Settings,
  arrays: _Arrays,
  windows: jax.Array,
  realisations: jax.Array,
  weights: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Serves windows [B, S + 1] under realisations [B] int32.

  Returns:
    Rewards, accuracies, and joules a token, [B] each.
  """
  model, params, radio = settings.model, arrays.params, arrays.radio
  num_layers, num_experts = radio.dissimilarity.shape[:2]
  read = data.read_windows(windows)
  # [L, B, E, M + 1] of the requests' realisations.
  energy = jnp.moveaxis(radio.energy_j[realisations], 1, 0)
  table = radio.dissimilarity
  unit = jnp.mean(table[:, :, -1], axis=1)
  last_j = jnp.zeros((), jnp.float32)
  share = jnp.full(num_layers, 1.0) * arrays.share
  if settings.act == "budgets":
    share = arrays.share * num_layers * weights[:-1]
  else:
    model, params = _with_average(model, params, weights)
    apart = jnp.einsum("lij,j->li", table[:, :, :num_experts], weights)
    table = jnp.concatenate([table[:, :, :num_experts], apart[:, :, None]], 2)
    last_j = radio.local_j
  # Inf times 0 is no number: a unit is positive unless an expert is silent.
  budget = jnp.where(jnp.isinf(share), share, share * unit)
  layers = _Layer(table, energy, budget, jnp.broadcast_to(last_j, num_layers))
  reroute = Partial(_choose, layers)
  logits, joules = model.apply(
    params, read.inputs, reroute=reroute, observe=Partial(_joules, layers)
  )
  score = models.score_logits(logits, read.targets, read.is_scored)
  spent = jnp.sum(joules, axis=0) / settings.context
  return score.accuracy - arrays.joules_weight * spent, score.accuracy, spent


def _with_average(
  model: models.ByteLM, params: models.Params, weights: jax.Array
) -> tuple[models.ByteLM, models.Params]:
  """The model with one more expert, the average; the router never picks it."""
  config = model.config
  layers = dict(params["params"])
  for index in config.moe_layers:
    name = f"layer_{index}"
    experts = layers[name]["experts"]
    average = moe.merge(experts["stack"], weights)
    stack = dataclasses.replace(
      experts["stack"],
      w_in=jnp.concatenate([experts["stack"].w_in, average.w_in[None]]),
      w_out=jnp.concatenate([experts["stack"].w_out, average.w_out[None]]),
    )
    kernel = jnp.pad(experts["router"]["kernel"], ((0, 0), (0, 1)))
    layers[name] = {
      **layers[name],
      "experts": {"stack": stack, "router": {"kernel": kernel}},
    }
  config = dataclasses.replace(config, num_experts=config.num_experts + 1)
  return dataclasses.replace(model, config=config), {"params": layers}


def _choose(tree: _Layer, layer: MoeInput) -> Routing:
  """The cheapest columns within the budget at fixed prices, less late pairs."""
  num_experts = tree.dissimilarity.shape[0]
  has_average = layer.routing.probabilities.shape[1] > num_experts
  routing, slots = layer.routing, layer.routing.expert_ids.shape[1]
  if has_average:
    routing = moe.top_k(layer.router_logits[:, :num_experts], slots)
  tokens = routing.gates.shape[0]
  each = tokens // tree.energy_j.shape[0]
  # The mean energy at an even load, or at what the expert can serve.
  most = jnp.sum(jnp.isfinite(tree.energy_j), axis=2) - 1  # [B, E]
  load = jnp.clip(most, 1, max(1, each * slots // num_experts))
  price = jnp.take_along_axis(tree.energy_j, load[:, :, None], axis=2)[..., 0]
  price = price / load.astype(jnp.float32)
  last = jnp.full((price.shape[0], 1), 1.0) * tree.last_j
  price = jnp.repeat(jnp.concatenate([price, last], axis=1), each, axis=0)
  # [N, K, E + 1] deviations; staying has none.
  ids, gates = routing.expert_ids, routing.gates.astype(jnp.float32)
  columns = jnp.arange(num_experts + 1, dtype=jnp.int32)[None, None]
  is_own = columns == ids[:, :, None]
  spent = gates[:, :, None] * tree.dissimilarity[ids]
  spent = jnp.where(is_own, 0.0, spent)
  if slots == 1:
    cost = jnp.where(spent[:, 0] <= tree.budget, price, jnp.inf)
    found = jnp.argmin(cost, axis=1)[:, None]
  else:
    total = spent[:, 0, :, None] + spent[:, 1, None, :]
    cost = price[:, :, None] + price[:, None, :]
    cost = jnp.where(total <= tree.budget, cost, jnp.inf)
    best = jnp.argmin(cost.reshape(tokens, -1), axis=1)
    found = jnp.stack(jnp.divmod(best, num_experts + 1), axis=1)
  found = found.astype(jnp.int32)
  # Where nothing can be paid the router's choice stays, and is lost if late.
  is_open = jnp.isfinite(jnp.min(cost.reshape(tokens, -1), axis=1))
  found = jnp.where(is_open[:, None], found, ids)
  found = jnp.where(_is_in_time(found, most), found, NO_EXPERT)
  if not has_average:
    found = jnp.where(found == num_experts, NO_EXPERT, found)
  gates = jnp.where(found == NO_EXPERT, 0.0, gates)
  return layer.routing._replace(
    expert_ids=found, gates=gates.astype(layer.routing.gates.dtype)
  )


def _is_in_time(found: jax.Array, most: jax.Array) -> jax.Array:
  """[N, K] which pairs their experts can still serve, in the tokens' order."""
  requests, num_experts = most.shape
  flat = found.reshape(requests, -1)
  experts = jnp.arange(num_experts, dtype=jnp.int32)[None, None]
  is_expert = flat[:, :, None] == experts
  place = jnp.cumsum(is_expert.astype(jnp.int32), axis=1)
  late = jnp.any(is_expert & (place > most[:, None, :]), axis=2)
  return ~late.reshape(found.shape)


def _joules(tree: _Layer, layer: MoeInput, output: MoeOutput) -> jax.Array:
  """[B] joules of a layer."""
  del output
  requests, num_experts = tree.energy_j.shape[:2]
  ids = layer.routing.expert_ids.reshape(requests, -1)
  columns = jnp.arange(num_experts + 1, dtype=jnp.int32)[None, None]
  loads = jnp.sum(ids[:, :, None] == columns, axis=1, dtype=jnp.int32)
  energy = jnp.take_along_axis(
    tree.energy_j, loads[:, :num_experts, None], axis=2
  )[..., 0]
  # Two pairs of a token at the user's average are one state.
  local = jnp.any(layer.routing.expert_ids == num_experts, axis=1).reshape(
    requests, -1
  )
  local = jnp.sum(local, axis=1).astype(jnp.float32)
  return jnp.sum(energy, axis=1) + tree.last_j * local


def _measure(
  settings: _Settings,
  arrays: _Arrays,
  candidates: jax.Array,
  windows: jax.Array,
) -> OracleTable:
  """The candidates' mean rewards on each task, under all realisations."""
  rewards = _candidate_rewards(settings, arrays, candidates, windows)
  return OracleTable(jnp.asarray(candidates, jnp.float32), rewards)


def _candidate_rewards(
  settings: _Settings,
  arrays: _Arrays,
  candidates: jax.Array,
  windows: jax.Array,
) -> jax.Array:
  num_tasks, each, length = windows.shape
  count = arrays.radio.energy_j.shape[0]
  flat = windows.reshape(num_tasks * each, length)
  # Every window meets realisations in turn.
  turns = jnp.asarray(np.arange(len(flat)) % count, jnp.int32)
  rewards = _serve_all(settings, arrays, flat, turns, candidates)
  return jnp.mean(rewards.reshape(-1, num_tasks, each), axis=2)


@jax.jit
def _serve_all(
  settings: _Settings,
  arrays: _Arrays,
  windows: jax.Array,
  realisations: jax.Array,
  candidates: jax.Array,
) -> jax.Array:
  return jax.lax.map(
    lambda x: serve(settings, arrays, windows, realisations, x)[0],
    jnp.asarray(candidates, jnp.float32),
  )
