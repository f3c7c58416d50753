"""Serving a slot of requests: rewards, and the signals that come with them.

The gradient takes one reverse pass: each layer's derivative in its merged
matrices is computed once and contracted with the experts, which are read a
second time. That costs less than one forward for each direction, and exact
derivatives in all E weights at once. The requests whose gradient is taken are
served by the same forward.

A metric without a derivative is told by differences: its requests are split
over R merges, each moved from the played point towards one expert.

The usage needs no forward of the model of experts: its routers are applied to
what the merged model's layers see. Letters: B requests of a slot, n of them
with a gradient, R merges at once, S tokens of context, E experts, V here the
vocabulary.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import data, models
from tanbr_jax.checks.names import check_choice
from tanbr_jax.environments.gradients import SlotGradient, without_mean

SIGNALS = ("agreement", "differences", "entropy", "log_likelihood")


def _static(**given: Any) -> Any:
  return dataclasses.field(metadata={"static": True}, **given)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Serving:
  """How a slot is served, and what it tells; static but for the reward.

  Attributes:
    reward: of each request, see `environments.rewards`; its arrays are leaves.
    model: with experts.
    serve: "merged", or "routed", which ignores the merge weights.
    gradient_requests: n, the first of the slot's requests.
    signal: a name of `SIGNALS`, whose gradient it is.
    merges: R, of "differences".
    spread: how far these merges are moved, in (0, 1].
    usage: whether the routers' usage is told.
  """

  reward: Partial
  model: models.Model = _static()
  serve: str = _static()
  gradient_requests: int = _static(default=0)
  signal: str = _static(default="log_likelihood")
  merges: int = _static(default=2)
  spread: float = _static(default=0.3)
  usage: bool = _static(default=False)


class Served(NamedTuple):
  """What a slot gave.

  Attributes:
    rewards: [B] float32, of each request.
    usage: [E] float32, or None.
    gradient: or None.
  """

  rewards: jax.Array
  usage: jax.Array | None = None
  gradient: SlotGradient | None = None


def check(
  *,
  signal: str,
  gradient_requests: int,
  requests: int,
  num_experts: int,
  merges: int,
) -> None:
  """Refuses what a merged slot cannot tell.

  Args:
    signal: a name of `SIGNALS`.
    gradient_requests: n, in [0, requests].
    requests: B.
    num_experts: E.
    merges: R, read by "differences": in [2, E], and divides n.

  Raises:
    ValueError: a value is none of these, in one line.
  """
  check_choice("signal", signal, SIGNALS)
  if not 0 <= gradient_requests <= requests:
    raise ValueError(
      "gradient_requests must be in [0, requests of a slot], got "
      f"gradient_requests={gradient_requests}, requests={requests}"
    )
  if signal != "differences":
    return
  if not 2 <= merges <= num_experts or gradient_requests % merges:
    raise ValueError(
      "merges must be in [2, num_experts] and divide gradient_requests, got "
      f"merges={merges}, num_experts={num_experts}, "
      f"gradient_requests={gradient_requests}"
    )


def serve(
  key: jax.Array,
  serving: Serving,
  params: models.Params,
  windows: jax.Array,
  merge_weights: jax.Array,
) -> Served:
  """Serves a slot.

  Args:
    key: random key, consumed: which experts "differences" moves towards.
    serving: how.
    params: of its model.
    windows: [B, S + 1] integer tokens; the last S of each are predicted, and
      scored unless they are marked, see `data.batching`.
    merge_weights: [E], the point played.
  """
  if serving.serve == "routed":
    told = _forward(serving, serving.model, params, params, windows)[1]
    return Served(*told)
  if serving.gradient_requests == 0:
    dense, merged = models.merge(serving.model, params, merge_weights)
    return Served(*_forward(serving, dense, merged, params, windows)[1])
  if serving.signal == "differences":
    return _serve_differences(key, serving, params, windows, merge_weights)
  return _serve_with_gradient(serving, params, windows, merge_weights)


def _serve_with_gradient(
  serving: Serving,
  params: models.Params,
  windows: jax.Array,
  merge_weights: jax.Array,
) -> Served:
  model, count = serving.model, serving.gradient_requests
  first, rest = windows[:count], windows[count:]

  def objective(weights: jax.Array) -> tuple[jax.Array, tuple]:
    dense, merged = models.merge(model, params, weights)
    value, told = _forward(
      serving, dense, merged, params, first, signal=serving.signal
    )
    return value, (told, merged)

  gradient, (told, merged) = jax.grad(objective, has_aux=True)(merge_weights)
  found = SlotGradient(without_mean(gradient), jnp.int32(count))
  if rest.shape[0]:
    # Served by the merged model of the same pass: experts are merged once.
    dense = models.dense_form(model)
    others = _forward(serving, dense, merged, params, rest)[1]
    told = _join(told, others, count / windows.shape[0])
  return Served(*told, found)


def _serve_differences(
  key: jax.Array,
  serving: Serving,
  params: models.Params,
  windows: jax.Array,
  merge_weights: jax.Array,
) -> Served:
  """Serves the first n requests by R other merges, the rest as played."""
  model, count = serving.model, serving.gradient_requests
  num_experts = model.config.num_experts
  experts = jax.random.permutation(key, num_experts)[: serving.merges]
  corners = jax.nn.one_hot(experts, num_experts, dtype=jnp.float32)
  points = (1 - serving.spread) * merge_weights[None] + serving.spread * corners

  def serve_part(weights: jax.Array, windows: jax.Array) -> _Told:
    dense, merged = models.merge(model, params, weights)
    return _forward(serving, dense, merged, params, windows)[1]

  # A batch over the weights alone: all merges are one pass over the experts.
  parts = windows[:count].reshape(serving.merges, -1, windows.shape[1])
  told = jax.vmap(serve_part)(points, parts)
  gradient = slope_of_differences(
    jnp.mean(told.rewards, axis=1), corners, spread=serving.spread
  )
  usage = None if told.usage is None else jnp.mean(told.usage, axis=0)
  told = _Told(told.rewards.reshape(-1), usage)
  if count < windows.shape[0]:
    others = serve_part(merge_weights, windows[count:])
    told = _join(told, others, count / windows.shape[0])
  return Served(*told, SlotGradient(gradient, jnp.int32(count)))


def slope_of_differences(
  rewards: jax.Array, corners: jax.Array, *, spread: float
) -> jax.Array:
  """A gradient from the rewards of merges moved towards some experts.

  Where the reward is linear its mean over all choices of R experts is the
  gradient g without its mean: moved by a towards expert i the reward is a g_i
  more than something common to all. An expert is among the R with probability
  R / E, and less the mean of the R its g_i counts (R - 1) / R * E / (E - 1)
  times, in the mean over the others: what makes up for both is
  (E - 1) / (R - 1).

  Args:
    rewards: [R], R >= 2, means over the requests of each merge.
    corners: [R, E], the one-hot vectors of R different experts.
    spread: a, in (0, 1].

  Returns:
    [E] float32, without its mean.
  """
  merges, num_experts = corners.shape
  scale = (num_experts - 1) / ((merges - 1) * spread)
  return scale * (rewards - jnp.mean(rewards)) @ corners


class _Told(NamedTuple):
  rewards: jax.Array
  usage: jax.Array | None


def _join(first: _Told, rest: _Told, share: float) -> _Told:
  """What two parts of a slot tell, `share` of its requests in the first."""
  usage = None
  if first.usage is not None:
    usage = share * first.usage + (1 - share) * rest.usage
  return _Told(jnp.concatenate([first.rewards, rest.rewards]), usage)


def _forward(
  serving: Serving,
  served: models.Model,
  served_params: models.Params,
  params: models.Params,
  windows: jax.Array,
  *,
  signal: str | None = None,
) -> tuple[jax.Array | None, _Told]:
  """The signal's objective [], if any, and what the slot tells."""

  def part(windows: jax.Array) -> tuple:
    read = data.read_windows(windows)
    usage = None
    if serving.usage:
      observe = models.observe_usage(params, serving.model.config.moe_layers)
      logits, seen = served.apply(
        served_params,
        read.inputs,
        attention_mask=read.is_text,
        observe=observe,
      )
      usage = jnp.mean(seen, axis=0)
      usage = jnp.broadcast_to(usage, (windows.shape[0], *usage.shape))
    else:
      logits = served.apply(served_params, read.inputs)
    value = None
    if signal is not None:
      value = _objective(signal, serving.model, params, logits, read)
    return value, serving.reward(logits, read).astype(jnp.float32), usage

  value, rewards, usage = models.over_windows(
    part, windows, vocab_size=serving.model.config.vocab_size
  )
  if value is not None:
    value = jnp.mean(value)
  if usage is not None:
    # By requests, as `_join` does: parts of a slot may differ in padding.
    usage = jnp.mean(usage, axis=0)
  return value, _Told(rewards, usage)


def _objective(
  signal: str,
  model: models.Model,
  params: models.Params,
  logits: jax.Array,
  read: data.Windows,
) -> jax.Array:
  """What grows where weights are good, see SIGNALS; a mean for each window.

  Args:
    signal: its name.
    model: the routed model.
    params: its parameters.
    logits: [n, S, V] of the merged model.
    read: the windows.

  Returns:
    [n] float32.
  """
  if signal == "log_likelihood":
    return -models.score_logits(logits, read.targets, read.is_scored).loss
  log_probabilities = jax.nn.log_softmax(logits)
  if signal == "entropy":
    entropy = -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)
    return -models.mean_over_scored(entropy, read.is_scored)
  # Minus the divergence, but for the routed model's own entropy: a constant.
  reference = jax.nn.log_softmax(model.apply(params, read.inputs))
  value = jnp.sum(jnp.exp(reference) * log_probabilities, axis=-1)
  return models.mean_over_scored(value, read.is_scored)
