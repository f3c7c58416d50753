"""A real Mixture-of-Experts model that serves slots of requests.

A slot draws the task of each request from the mix and a window of that task's
text, uniformly; the experts are merged with the played weights and the dense
model predicts every next token of the windows. Letters: V tasks, E experts, B
requests of a slot, S tokens of context.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import data, models
from tanbr_jax.bandits.base import Context, Feedback
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Chance, Count, Range, Whole
from tanbr_jax.environments import rewards, slot_signals
from tanbr_jax.environments.base import Environment, Outcome
from tanbr_jax.environments.mixes import MixProcess, check_mix_length
from tanbr_jax.environments.oracle.merged_reward import window_rewards
from tanbr_jax.environments.oracle.table import OracleTable, choose
from tanbr_jax.environments.requests import count_tasks, draw_tasks
from tanbr_jax.environments.slot_signals import Served, Serving


class MoeSlotsState(NamedTuple):
  """State of `moe_slots`.

  Attributes:
    mix: the state of the task-mix process, for the slot that comes.
    monitor: the monitor's state; None if the true mix is shown.
  """

  mix: Any
  monitor: Any


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Settings:
  """The static settings, which fix the compiled program."""

  requests: int
  context: int
  paired: bool


class _Arrays(NamedTuple):
  """The arrays and processes that `jit` takes as arguments."""

  serving: Serving
  params: models.Params
  text: data.TaskText
  table: OracleTable
  task_values: jax.Array | None
  task_mix: MixProcess
  monitor: Any


@ranges.checked
def moe_slots(
  model: models.Model,
  params: models.Params,
  text: data.TaskText,
  *,
  task_mix: MixProcess,
  optimal_table: OracleTable,
  requests_per_slot: int = 16,
  context: int | None = None,
  monitor: Any = None,
  serve: str = "merged",
  reward: str | rewards.Reward = "accuracy",
  task_values: Annotated[Sequence[float], Range(0)] | None = None,
  paired: bool = True,
  gradient_requests: Whole = 0,
  signal: str = "log_likelihood",
  merges: Count = 2,
  spread: Chance = 0.3,
  usage: bool = False,
) -> Environment:
  """Slots of requests over held-out text, served by the merged model.

  `Feedback` holds each task's mean reward over its requests in the slot, and
  how many there were; a task without requests has reward 0. What a slot is
  depends on the keys alone: every method that runs with the same keys serves
  the same windows.

  `Outcome.expected_reward` and `realised_reward` are the mean reward over the
  slot's requests: the noise of drawing them is in both. With `paired=True`,
  `optimal_reward` is that of the table's weights for the true mix on the same
  requests, a second forward: the difference is an unbiased estimate of the
  slot's regret against the table, without the noise that both share, and can
  be negative. With `paired=False` it is the table's own estimate on validation
  text, without a second forward: right for a progress bar, but biased by the
  difference between the texts. `regret.against` then puts in its place what
  the oracle earned in a run of its own on the same keys, which makes the same
  numbers at the cost of one forward a slot for all methods together.

  Besides rewards a slot can tell two things without any label. The gradient in
  the merge weights, of one of these (means over the tokens of the first
  `gradient_requests` requests, which are a random part of the slot):

  - "log_likelihood": of the next token, the served text's own. It is the right
    one for language models; it misleads where the metric is not how likely the
    text is, and text that users wrote is not what they want to read.
  - "entropy": minus the entropy of the predictions (AdaMerging, Yang et al.,
    ICLR 2024), for outputs that are classes. It is low for confident mistakes
    too: ascent prefers an expert that is sure, be it right or wrong, and on
    generated text one that repeats itself.
  - "agreement": minus the divergence of the merged model's predictions from the
    routed model's, KL(routed, merged) (distillation). It costs a routed forward
    of these requests, and is as good as the routers: where they are not trained
    or the experts are fine-tunes without a router it teaches noise, and it
    stops improving where the merged model is better than the routed one.
  - "differences": of `reward` itself, for a metric without a derivative. These
    requests are split evenly over `merges` merges, each moved from the played
    point by `spread` towards another expert, drawn anew in every slot; the
    differences of their mean rewards make an estimate. It is as noisy as the
    rewards of few requests are, over `spread`; a larger spread is less noisy
    and, where the reward is curved, more biased. What is played is not
    one point then: `expected_reward` counts what the moved merges earned.

  And the usage, the mean over tokens and layers of the routers' probabilities,
  on the hidden states of the model that serves: merged ones differ from those
  that the routers know, hence the usage of a merged slot is an estimate.

  Args:
    model: a model with experts.
    params: its parameters.
    text: the test text of V tasks, each longer than `context`. Rewards,
      gradients and usage leave out what is not to be scored or padding, see
      `data.batching`.
    task_mix: the process of task mixes.
    optimal_table: best weights by mix (see `oracle.table`).
    requests_per_slot: B.
    context: S, None for the model's own, where it has one.
    monitor: a `Monitor` that estimates the mix from the counts of the slots
      before; None shows the true mix.
    serve: "merged", or "routed", which serves the model of experts itself and
      ignores the weights played.
    reward: of each request: a name of `environments.rewards`, such as
      "accuracy" or "log_likelihood" of the next token, or a function of logits
      and windows. The "log_likelihood" signal is the served text's whatever the
      reward is.
    task_values: [V], factors of the tasks' rewards, for instance 0 for tasks
      that pay nothing; None for 1. The table is of rewards without them; the
      gradient of the served text takes no notice of them.
    paired: whether the oracle serves each slot too.
    gradient_requests: of the slot's requests, how many give the gradient; 0
      gives none. A routed slot has none, as it ignores the weights.
    signal: whose gradient.
    merges: R of "differences", in [2, E]; divides `gradient_requests`.
    spread: of "differences", in (0, 1]; its default is not tuned.
    usage: whether the usage is told.

  Returns:
    An `Environment`; model parameters, text and table are leaves.

  Raises:
    ValueError: if a name is unknown, a size is out of range, or text, mix and
      table do not fit each other.
  """
  if context is None:
    context = model.config.context
  _check(model, text, optimal_table, requests_per_slot, context, serve)
  num_tasks = text.lengths.shape[0]
  reward = rewards.as_reward(reward)
  rewards.check_reward(
    reward,
    requests=requests_per_slot,
    context=context,
    vocab_size=model.config.vocab_size,
  )
  serving = Serving(
    reward, model, serve, gradient_requests, signal, merges, spread, usage
  )
  slot_signals.check(
    signal=signal,
    gradient_requests=gradient_requests,
    requests=requests_per_slot,
    num_experts=model.config.num_experts,
    merges=merges,
  )
  if gradient_requests and serve == "routed":
    raise ValueError(
      "a routed slot has no gradient in the merge weights, got "
      f"gradient_requests={gradient_requests} with serve='routed'"
    )
  needs_router = usage or serve == "routed"
  if gradient_requests and signal == "agreement":
    needs_router = True
  if needs_router and isinstance(model, models.FineTunes):
    raise ValueError(
      "fine-tunes have no router, which a routed slot, the usage and "
      f"'agreement' need, got serve={serve!r}, usage={usage}, signal={signal!r}"
    )
  check_mix_length(task_mix, num_tasks)
  if task_values is not None:
    task_values = jnp.asarray(task_values, jnp.float32)
    if task_values.shape != (num_tasks,):
      raise ValueError(
        "task_values must be one for each task, got shape "
        f"{list(task_values.shape)} for {num_tasks} tasks"
      )
  settings = _Settings(requests_per_slot, context, paired)
  arrays = _Arrays(
    serving, params, text, optimal_table, task_values, task_mix, monitor
  )
  return Environment(
    Partial(_init, task_mix, monitor),
    Partial(_context, task_mix, monitor),
    Partial(_step, settings, arrays),
  )


def _check(
  model: models.Model,
  text: data.TaskText,
  table: OracleTable,
  requests: int,
  context: int | None,
  serve: str,
) -> None:
  if serve not in ("merged", "routed"):
    raise ValueError(f"serve must be 'merged' or 'routed', got {serve!r}")
  if requests < 1:
    raise ValueError(
      f"requests_per_slot must be at least 1, got requests_per_slot={requests}"
    )
  shortest, longest = int(jnp.min(text.lengths)), model.config.context
  most = shortest - 1 if longest is None else min(longest, shortest - 1)
  if context is None or not 1 <= context <= most:
    raise ValueError(
      "context must be at least 1, at most the model's, and shorter than each "
      f"task's text, got context={context}, model's context={longest}, "
      f"shortest text={shortest}"
    )
  largest = int(jnp.max(data.token_ids(text.tokens)))
  if largest >= model.config.vocab_size:
    raise ValueError(
      "text must be tokens of the model, got token "
      f"{largest} for vocab_size={model.config.vocab_size}"
    )
  expected = (text.lengths.shape[0], model.config.num_experts)
  found = (table.rewards.shape[1], table.weights.shape[1])
  if found != expected:
    raise ValueError(
      "optimal_table must be over the text's tasks and the model's experts, "
      f"got (V, E)={found}, expected {expected}"
    )


def _init(task_mix: MixProcess, monitor: Any, key: jax.Array) -> MoeSlotsState:
  return MoeSlotsState(
    mix=task_mix.init(key), monitor=None if monitor is None else monitor.init()
  )


def _context(
  task_mix: MixProcess, monitor: Any, state: MoeSlotsState
) -> Context:
  if monitor is None:
    return Context(task_mix.mix(state.mix))
  return Context(monitor.estimate(state.monitor))


def _step(
  settings: _Settings,
  arrays: _Arrays,
  key: jax.Array,
  state: MoeSlotsState,
  merge_weights: jax.Array,
) -> tuple[Feedback, Outcome, MoeSlotsState]:
  """One slot: see `moe_slots`."""
  request_key, mix_key = jax.random.split(key)
  mix = arrays.task_mix.mix(state.mix)
  tasks, windows = draw_requests(
    request_key,
    arrays.text,
    mix,
    requests=settings.requests,
    context=settings.context,
  )
  served = slot_signals.serve(
    jax.random.fold_in(key, 2),  # splitting took 0 and 1
    arrays.serving,
    arrays.params,
    windows,
    merge_weights,
  )
  # What a request of each task is worth, [B].
  worth = None
  if arrays.task_values is not None:
    worth = arrays.task_values[tasks]
    served = served._replace(rewards=worth * served.rewards)
  reward = jnp.mean(served.rewards)
  best_weights, best_reward = choose(
    arrays.table, valued(mix, arrays.task_values)
  )
  if settings.paired:
    best_rewards = window_rewards(
      arrays.serving.model,
      arrays.params,
      windows,
      merge_weights=best_weights,
      reward=arrays.serving.reward,
    )
    if worth is not None:
      best_rewards = worth * best_rewards
    best_reward = jnp.mean(best_rewards)
  feedback = _feedback(tasks, served, num_tasks=mix.shape[0])
  outcome = Outcome(
    task_mix=mix,
    expected_reward=reward,
    realised_reward=reward,
    optimal_reward=best_reward,
    optimal_weights=best_weights,
  )
  new_monitor = state.monitor
  if arrays.monitor is not None:
    new_monitor = arrays.monitor.update(state.monitor, feedback.task_count)
  new_mix = arrays.task_mix.step(mix_key, state.mix)
  return feedback, outcome, MoeSlotsState(new_mix, new_monitor)


def valued(mix: jax.Array, task_values: jax.Array | None) -> jax.Array:
  """What a mix [V] is worth by task: its products with the values, if any."""
  return mix if task_values is None else mix * task_values


def draw_requests(
  key: jax.Array,
  text: data.TaskText,
  mix: jax.Array,
  *,
  requests: int,
  context: int,
) -> tuple[jax.Array, jax.Array]:
  """The requests of a slot.

  Args:
    key: random key, consumed.
    text: of V tasks.
    mix: [V].
    requests: B.
    context: S.

  Returns:
    Tasks [B] int32, and windows [B, S + 1] integer tokens of their text.
  """
  task_key, window_key = jax.random.split(key)
  tasks = draw_tasks(task_key, mix, requests=requests)
  return tasks, data.sample_task_windows(window_key, text, tasks, context + 1)


def _feedback(tasks: jax.Array, served: Served, *, num_tasks: int) -> Feedback:
  count = count_tasks(tasks, num_tasks=num_tasks)
  # Not a scatter-add, whose order and hence bits a GPU leaves open.
  is_task = tasks[:, None] == jnp.arange(num_tasks, dtype=jnp.int32)[None, :]
  total = jnp.sum(jnp.where(is_task, served.rewards[:, None], 0.0), axis=0)
  seen = jnp.maximum(count, 1).astype(jnp.float32)
  feedback = Feedback(total / seen, count, usage=served.usage)
  if served.gradient is None:
    return feedback
  return feedback._replace(**served.gradient._asdict())
