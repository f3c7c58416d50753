"""Synthetic environments: rewards over the simplex with a known optimum.

The landscape is drawn in `init` and lives in the state, so that seeds under
`vmap` have landscapes of their own. Letters: V tasks, E experts.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Context, Feedback, Shape
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import AtLeastTwo, Count, NonNegative, Range
from tanbr_jax.environments import noise as noises
from tanbr_jax.environments.base import Environment, Outcome
from tanbr_jax.environments.gradients import NoisyGradients, noisy_gradients
from tanbr_jax.environments.landscapes import changed_families, families
from tanbr_jax.environments.mixes import MixProcess, check_mix_length
from tanbr_jax.environments.requests import count_tasks, draw_tasks


class SyntheticState(NamedTuple):
  """State of `synthetic`.

  Attributes:
    landscape: the family's parameters.
    mix: the state of the task-mix process, for the slot that comes.
    monitor: the monitor's state; None if the true mix is shown.
    slot: [] int32, the number of the slot that comes; None without gradients.
  """

  landscape: Any
  mix: Any
  monitor: Any
  slot: jax.Array | None = None


@ranges.checked
def synthetic(
  family: str,
  *,
  num_experts: AtLeastTwo = 8,
  num_tasks: AtLeastTwo = 8,
  task_mix: MixProcess,
  noise: NonNegative = 0.05,
  noise_kind: str = "gaussian",
  reward_drift: Annotated[float, Range(0, 0.5, "[]")] = 0.0,
  monitor: Any = None,
  requests: Count | None = None,
  gradient_noise: NonNegative | None = None,
  gradient_every: Count = 1,
  family_options: Mapping[str, Any] | None = None,
) -> Environment:
  """A stream of slots over a random landscape of the named family.

  With `requests=None` each slot shows the reward of every task, h(x) plus
  noise, with count 1. With `requests=n` the slot holds n requests, each of a
  task drawn from the mix: a task with count c > 0 shows the mean of c rewards,
  whose noise has variance noise^2 / c, a task with count 0 shows 0. The
  realised reward is the shown rewards' mean over the mix, respectively over
  the requests.

  `Feedback.gradient` is the derivative of psi . h(x), with requests that of the
  mean of h(x) over them, at the played point, plus normal noise; the mean over
  experts is taken off at last. `Feedback.usage` is None: there is no router.

  With noise_kind="bernoulli" a request's reward is 0 or 1. Its mean, and every
  reward of `Outcome`, is then (h(x) - low) / (high - low) with the bounds of
  the family on the drawn landscape: regret is in units of high - low.

  Args:
    family: a name of `families.FAMILIES`.
    num_experts: E.
    num_tasks: V.
    task_mix: the process of task mixes, over the same V tasks.
    noise: standard deviation of the reward of one request.
    noise_kind: "bernoulli", "gaussian", "heavy_tailed" or "task_dependent"
      (see `noise.create`).
    reward_drift: rounds between two landscapes that a task makes in a slot, in
      [0, .5] (see `changed_families.moving`); at 0 rewards stay.
    monitor: a `Monitor` that estimates the mix from the counts of the slots
      before; None shows the true mix.
    requests: requests of a slot; None for all tasks in every slot.
    gradient_noise: standard deviation of each entry of one request's gradient
      (of the slot's, without requests), in rewards per unit of weight; a slot
      of n requests has that over sqrt(n). None gives no gradients.
    gradient_every: slots from one gradient to the next, the first slot has one.
    family_options: further arguments of the family's constructor.

  Returns:
    An `Environment`. `Outcome.optimal_reward` is exact to 1e-4, mostly to
    rounding; `network_search` says how often the network family is.

  Raises:
    ValueError: if the family is unknown, a number is out of range, the mix has
      another length, or a monitor is given without requests.
  """
  _check(family, monitor, requests)
  check_mix_length(task_mix, num_tasks)
  sampler = noises.create(noise_kind, noise=noise, num_tasks=num_tasks)
  landscape = _landscape(
    family, num_experts, num_tasks, reward_drift, family_options or {}
  )
  if noise_kind == "bernoulli":
    landscape = changed_families.to_unit_interval(landscape)
  gradients = noisy_gradients(
    gradient_noise, every=gradient_every, requests=requests
  )
  observe = Partial(_show_all, sampler)
  if requests is not None:
    observe = Partial(_serve, sampler, Shape((requests,)))
  return Environment(
    Partial(_init, landscape, task_mix, monitor, gradients),
    Partial(_context, task_mix, monitor),
    Partial(_step, landscape, task_mix, monitor, observe, gradients),
  )


def _check(
  family: str,
  monitor: Any,
  requests: int | None,
) -> None:
  check_choice("family", family, families.FAMILIES)
  if monitor is not None and requests is None:
    raise ValueError("a monitor needs counts: give requests, got requests=None")


def _landscape(
  family: str,
  num_experts: int,
  num_tasks: int,
  reward_drift: float,
  options: Mapping[str, Any],
) -> families.Family:
  constructor = families.FAMILIES[family]
  landscapes = 1 if reward_drift == 0.0 else 2
  try:
    made = constructor(
      num_experts=num_experts, num_tasks=landscapes * num_tasks, **options
    )
  except TypeError as error:
    raise ValueError(f"family {family!r}: {error}") from error
  if landscapes == 1:
    return made
  return changed_families.moving(made, num_tasks=num_tasks, rate=reward_drift)


def _init(
  family: families.Family,
  task_mix: MixProcess,
  monitor: Any,
  gradients: NoisyGradients | None,
  key: jax.Array,
) -> SyntheticState:
  landscape_key, mix_key = jax.random.split(key)
  return SyntheticState(
    landscape=family.init(landscape_key),
    mix=task_mix.init(mix_key),
    monitor=None if monitor is None else monitor.init(),
    slot=None if gradients is None else jnp.int32(0),
  )


def _context(
  task_mix: MixProcess, monitor: Any, state: SyntheticState
) -> Context:
  if monitor is None:
    return Context(task_mix.mix(state.mix))
  return Context(monitor.estimate(state.monitor))


def _step(
  family: families.Family,
  task_mix: MixProcess,
  monitor: Any,
  observe: Partial,
  gradients: NoisyGradients | None,
  key: jax.Array,
  state: SyntheticState,
  merge_weights: jax.Array,
) -> tuple[Feedback, Outcome, SyntheticState]:
  """One slot: see `synthetic`."""
  observe_key, mix_key = jax.random.split(key)
  mix = task_mix.mix(state.mix)
  mean_reward = family.reward(state.landscape, merge_weights)
  feedback, shares = observe(observe_key, mean_reward, mix)
  new_slot = None
  if gradients is not None:
    shown = gradients.show(
      jax.random.fold_in(key, 2),  # splitting took 0 and 1
      state.slot,
      Partial(family.reward, state.landscape),
      shares,
      merge_weights,
    )
    feedback = feedback._replace(**shown._asdict())
    new_slot = state.slot + jnp.int32(1)
  best = family.optimum(state.landscape, mix)
  outcome = Outcome(
    task_mix=mix,
    expected_reward=mix @ mean_reward,
    realised_reward=shares @ feedback.task_reward,
    optimal_reward=mix @ family.reward(state.landscape, best),
    optimal_weights=best,
  )
  new_monitor = state.monitor
  if monitor is not None:
    new_monitor = monitor.update(state.monitor, feedback.task_count)
  new_mix = task_mix.step(mix_key, state.mix)
  new_landscape = family.advance(state.landscape)
  new_state = SyntheticState(new_landscape, new_mix, new_monitor, new_slot)
  return feedback, outcome, new_state


def _show_all(
  sampler: noises.Sampler,
  key: jax.Array,
  mean_reward: jax.Array,
  mix: jax.Array,
) -> tuple[Feedback, jax.Array]:
  """The feedback of all tasks, and the share [V] of each in the slot's mean."""
  _, noise_key = jax.random.split(key)
  tasks = jnp.arange(mix.shape[0], dtype=jnp.int32)
  count = jnp.ones(mix.shape[0], jnp.int32)
  return Feedback(sampler(noise_key, mean_reward, tasks, count), count), mix


def _serve(
  sampler: noises.Sampler,
  shape: Shape,
  key: jax.Array,
  mean_reward: jax.Array,
  mix: jax.Array,
) -> tuple[Feedback, jax.Array]:
  """The feedback of as many requests, and each task's share [V] of them."""
  count_key, noise_key = jax.random.split(key)
  (requests,) = shape
  tasks = draw_tasks(count_key, mix, requests=requests)
  count = count_tasks(tasks, num_tasks=mix.shape[0])
  reward = sampler(noise_key, mean_reward, tasks, count)
  return Feedback(reward, count), count.astype(jnp.float32) / requests
