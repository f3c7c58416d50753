"""Tanbr: an optimistic bandit on a binary tree over the merge weights.

Han, Liu, Zhou, Dai, Lui, "Faster, Smaller, and Smarter: Task-Aware Expert
Merging for Online MoE Inference", arXiv 2509.19781. There is no public code;
what the paper does not state is a reconstruction, marked [R].

A round: every leaf of the tree offers one weight vector; a reward model scores
each with psi . f(x) plus an exploration bonus; the best is played, or climbed
from; the leaf that holds the played weights is counted, and splits in two once
its count reaches tau_h (`tree_growth`). Letters: V tasks, E experts, M tree
capacity.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import partition as partitions
from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  check_sizes,
)
from tanbr_jax.bandits.candidates import dirichlet_half
from tanbr_jax.bandits.linear.multitask_ts import ModelConfig, make_model
from tanbr_jax.bandits.neural.neural_model import (
  Numbers,
  Structure,
  neural_model,
)
from tanbr_jax.bandits.reward_model import RewardModel, observed
from tanbr_jax.bandits.trees import tree_growth
from tanbr_jax.partition import Partition
from tanbr_jax.simplex import ascent


@dataclasses.dataclass(frozen=True)
class TanbrConfig:
  """Every hyper-parameter of `tanbr`; see PRESETS.

  Attributes:
    cells: "box" (the paper's [0,1]^E) or "simplex" (no infeasible cell).
    budget: B, the most non-zero weights (boxes only); None for E.
    capacity: M, nodes that the tree may hold, leaves included.
    rho: how fast cells shrink with depth, in (0, 1).
    split_scale: c^2 log(1 / delta) / nu^2, the visits that split the root.
    num_starts: leaves from which the score is ascended.
    num_ascent_steps: ascent steps; 0 plays a leaf's representative.
    num_fresh: fresh Dirichlet(1/2) draws that join the leaves as starts, as
      many as the tree has splits at first, num_fresh in the end.
    model: "network" (trained by gradient steps) or "multitask" (exact
      Bayesian regression, see `multitask_ts.ModelConfig`).
    rule: exploration of "multitask": "ucb" or "thompson".
    exploration: gamma, factor of the bonus.
    regularisation: lambda of "network"'s confidence.
    ridge: pull of the network to its initial parameters.
    learning_rate: of the network's Adam.
    hidden: widths of the network's hidden layers.
    confidence: "last_layer", "diagonal" or "full", of the network.
    num_steps: J, gradient steps of the network a round.
    batch_size: slots in one such step.
    num_fourier: these are of "multitask", as in `multitask_ts.ModelConfig`.
    length_scale: likewise.
    task_precision: likewise.
    common_precision: likewise.
    prior_strength: likewise.
    forgetting: likewise.
  """

  cells: str = "simplex"
  budget: int | None = None
  capacity: int = 255
  rho: float = 0.9
  split_scale: float = 1.0
  num_starts: int = 4
  num_ascent_steps: int = 12
  num_fresh: int = 32
  model: str = "multitask"
  rule: str = "thompson"
  exploration: float = 0.6
  regularisation: float = 1.0
  ridge: float = 0.0
  learning_rate: float = 1e-2
  hidden: tuple[int, ...] = (64, 64)
  confidence: str = "last_layer"
  num_steps: int = 2
  batch_size: int = 64
  num_fourier: int = 64
  length_scale: float = 0.6
  task_precision: float = 0.1
  common_precision: float = 0.03
  prior_strength: float = 0.5
  forgetting: float = 1.0


PRESETS = {
  # The paper's choices, kept where they lose. Stated: boxes, one root, two
  # hidden layers of 64, lambda = 1, gamma = 1, the leaf's own weights are
  # played. [R]: rho = .5, c^2 log(1/delta) / nu^2 = 1, last-layer confidence,
  # Adam 1e-2, J = 2 steps of 64 slots, rewards standardised.
  "paper": TanbrConfig(
    cells="box",
    capacity=1023,
    rho=0.5,
    num_ascent_steps=0,
    num_fresh=0,
    model="network",
    exploration=1.0,
    regularisation=1.0,
    ridge=1.0,
  ),
  # The best that we found (configs/regret/tune.py).
  "practical": TanbrConfig(),
}


class TanbrState(NamedTuple):
  """State of `tanbr`.

  Attributes:
    tree: of the partition.
    visits: [M] int32, rounds in which a node was the leaf that was played.
    model: of the reward model.
  """

  tree: Any
  visits: jax.Array
  model: Any


class _Bound(NamedTuple):
  partition: Partition
  model: RewardModel
  rho: jax.Array
  split_scale: jax.Array
  fresh: jax.Array  # [num_fresh, 0], read for its shape alone


def _init(bound: _Bound, key) -> TanbrState:
  tree = bound.partition.init()
  return TanbrState(tree, jnp.zeros_like(tree.depths), bound.model.init(key))


def _select(
  climb: ascent.Ascent, bound: _Bound, key, state, context: Context
) -> Decision:
  tree = state.tree
  model_key, fresh_key = jax.random.split(key)
  estimate = bound.model.estimate(model_key, state.model, context.task_mix)
  num_leaves = jnp.sum(tree.is_leaf, dtype=jnp.int32)
  num_fresh = bound.fresh.shape[0]
  fresh = dirichlet_half(fresh_key, (num_fresh, tree.representatives.shape[1]))
  best = climb(
    lambda weights: sum(estimate(weights)),
    jnp.concatenate([tree.representatives, fresh]),
    jnp.concatenate([tree.is_leaf, jnp.arange(num_fresh) < num_leaves - 1]),
  )
  mean, bonus = estimate(best.weights)
  # Representatives of boxes lie on faces that two cells share: a leaf that is
  # played as it is must be credited itself.
  capacity = tree.representatives.shape[0]
  own = jnp.minimum(best.candidate, capacity - 1)
  is_own = jnp.all(best.weights == tree.representatives[own])
  is_own = is_own & (best.candidate < capacity)
  located = bound.partition.locate(tree, best.weights)
  leaf = jnp.where(is_own, own, located)
  aux = {
    "leaf": leaf,
    "depth": tree.depths[leaf],
    "max_depth": jnp.max(jnp.where(tree.is_leaf, tree.depths, 0)),
    "num_leaves": num_leaves,
    "tree_full": tree.full,
    "predicted_reward": mean,
    "exploration_bonus": bonus,
  }
  return Decision(best.weights, aux)


def _update(
  bound: _Bound, key, state, context: Context, decision, feedback: Feedback
) -> TanbrState:
  leaf = decision.aux["leaf"]
  _, count = observed(feedback)
  seen = jnp.any(count > 0)
  model = bound.model.update(
    key, state.model, context.task_mix, decision.merge_weights, feedback
  )
  tree, visits = tree_growth.visit(
    bound.partition,
    state.tree,
    state.visits,
    leaf,
    seen,
    rho=bound.rho,
    split_scale=bound.split_scale,
  )
  return TanbrState(tree, visits, model)


def _model(config: TanbrConfig, num_experts: int, num_tasks: int):
  if config.model == "network":
    structure = Structure(
      num_experts=num_experts,
      num_tasks=num_tasks,
      hidden=config.hidden,
      confidence=config.confidence,
      num_steps=config.num_steps,
      batch_size=config.batch_size,
    )
    numbers = Numbers(
      config.exploration,
      config.regularisation,
      config.ridge,
      config.learning_rate,
    )
    return neural_model(structure, numbers)
  names = set(ModelConfig._fields) & {f.name for f in _fields()}
  model = ModelConfig(**{name: getattr(config, name) for name in names})
  return make_model(model, num_experts=num_experts, num_tasks=num_tasks)


def _partition(config: TanbrConfig, num_experts: int) -> Partition:
  if config.cells == "box":
    return partitions.box(
      num_experts=num_experts, capacity=config.capacity, budget=config.budget
    )
  return partitions.simplex(num_experts=num_experts, capacity=config.capacity)


def _fields() -> tuple[dataclasses.Field, ...]:
  return dataclasses.fields(TanbrConfig)


def _check(config: TanbrConfig, num_experts: int) -> None:
  has_budget = config.budget not in (None, num_experts)
  if has_budget and config.cells != "box":
    raise ValueError(
      "a budget other than num_experts needs cells='box', got "
      f"budget={config.budget}, num_experts={num_experts}"
    )
  if has_budget and config.num_ascent_steps:
    raise ValueError(
      "a budget below num_experts needs num_ascent_steps=0, because the ascent "
      f"leaves the budget, got budget={config.budget}, "
      f"num_ascent_steps={config.num_ascent_steps}"
    )
  if config.num_starts < 1 or config.num_ascent_steps < 0:
    raise ValueError(
      "num_starts must be at least 1 and num_ascent_steps not negative, got "
      f"num_starts={config.num_starts}, num_ascent_steps="
      f"{config.num_ascent_steps}"
    )
  if not config.exploration >= 0:
    raise ValueError(
      f"exploration must not be negative, got exploration={config.exploration}"
    )
  tree_growth.check(config.rho, config.split_scale)
  if config.cells not in ("box", "simplex"):
    raise ValueError(
      f"cells must be 'box' or 'simplex', got cells={config.cells!r}"
    )
  if config.model not in ("network", "multitask"):
    raise ValueError(
      f"model must be 'network' or 'multitask', got model={config.model!r}"
    )
  if config.num_fresh < 0 or (config.num_fresh and not config.num_ascent_steps):
    raise ValueError(
      "num_fresh must not be negative, and 0 without an ascent, got "
      f"num_fresh={config.num_fresh}, num_ascent_steps="
      f"{config.num_ascent_steps}"
    )


def tanbr(
  *,
  num_experts: int,
  num_tasks: int,
  preset: str = "practical",
  **overrides: Any,
) -> Bandit:
  """Tanbr, in one of two labelled presets.

  Args:
    num_experts: E.
    num_tasks: V.
    preset: "paper" (arXiv 2509.19781 as reconstructed) or "practical".
    **overrides: fields of `TanbrConfig` that replace the preset's.

  Returns:
    A `Bandit`; its decisions' aux holds leaf, depth, max_depth, num_leaves,
    tree_full, predicted_reward and exploration_bonus, all scalars.

  Raises:
    ValueError: if the preset or a field is not known, or a value out of range.
  """
  if preset not in PRESETS:
    raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset=}")
  known = {field.name for field in _fields()}
  if unknown := sorted(set(overrides) - known):
    raise ValueError(f"unknown fields {unknown}, known are {sorted(known)}")
  config = dataclasses.replace(PRESETS[preset], **overrides)
  check_sizes(num_experts, num_tasks)
  _check(config, num_experts)
  bound = _Bound(
    _partition(config, num_experts),
    _model(config, num_experts, num_tasks),
    jnp.float32(config.rho),
    jnp.float32(config.split_scale),
    jnp.zeros((config.num_fresh, 0), jnp.float32),
  )
  climb = ascent.Ascent(
    num_starts=min(config.num_starts, config.capacity),
    num_steps=config.num_ascent_steps,
  )
  return Bandit(
    Partial(_init, bound),
    Partial(_select, climb, bound),
    Partial(_update, bound),
  )
