"""Quality and activity of a model on test windows.

Letters: V tasks, n windows of each, S tokens of context, B windows of a batch,
L layers with experts, K experts per token, E experts.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import data, masking, models, moe
from tanbr_jax.moe import MoeInput, MoeOutput


class Evaluation(NamedTuple):
  """Means over test windows, NumPy.

  Attributes:
    loss: [V], nats a token.
    accuracy: [V].
    active: [V], experts per token, mean over layers.
    active_by_layer: [L].
    active_by_rank: [L, K], share of the tokens whose expert of that rank is
      active.
    distinct: [L], different experts of a step of B sequences.
    load: [L, E], each expert's share of the active pairs.
    active_by_token: [vocabulary], active experts of each token of the
      vocabulary that was read, summed, mean over layers.
    count_by_token: [vocabulary], how often it was read.
  """

  loss: np.ndarray
  accuracy: np.ndarray
  active: np.ndarray
  active_by_layer: np.ndarray
  active_by_rank: np.ndarray
  distinct: np.ndarray
  load: np.ndarray
  active_by_token: np.ndarray
  count_by_token: np.ndarray

  @property
  def mean_active(self) -> float:
    """Experts per token, over tasks and layers."""
    return float(np.mean(self.active))


def evaluate(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  *,
  batch_size: int,
  reroute: models.Reroute | None = None,
) -> Evaluation:
  """Scores every window, in batches that mix the tasks.

  Args:
    model: with experts.
    params: its parameters.
    windows: [V, n, S + 1].
    batch_size: B, a divisor of n.
    reroute: what it is run with; None for its own routers.
  """
  num_tasks, count, length = windows.shape
  mixed = windows.swapaxes(0, 1).reshape(-1, batch_size, length)
  found = jax.device_get(_program(model)(params, mixed, reroute))
  score, active, activity, by_token = found
  by_task = lambda x: (  # noqa: E731
    np.asarray(x).reshape(count, num_tasks).mean(axis=0)
  )
  total = jax.tree.map(lambda x: x.sum(axis=0), activity)
  load = total.num_by_expert
  return Evaluation(
    loss=by_task(score.loss),
    accuracy=by_task(score.accuracy),
    active=by_task(active),
    active_by_layer=total.num_pairs / total.num_tokens,
    active_by_rank=total.num_by_rank / total.num_tokens[:, None],
    distinct=total.num_distinct / total.num_steps,
    load=load / np.maximum(load.sum(axis=1, keepdims=True), 1),
    active_by_token=by_token[0].sum(axis=0),
    count_by_token=by_token[1].sum(axis=0),
  )


@functools.lru_cache(maxsize=4)
def _program(model: models.Model) -> Any:
  return jax.jit(functools.partial(_run, model))


def _run(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  reroute: models.Reroute | None,
) -> Any:
  length = windows.shape[2] - 1
  observe = Partial(_see_of(length))

  def of_batch(windows: jax.Array) -> Any:
    read = data.read_windows(windows)
    logits, (activity, active) = model.apply(
      params,
      read.inputs,
      attention_mask=read.is_text,
      reroute=reroute,
      observe=observe,
    )
    score = models.score_logits(logits, read.targets, read.is_scored)
    # Experts per token, mean over the layers, padding left out.
    by_token = jnp.mean(active.astype(jnp.float32), axis=0)
    is_text = read.is_text
    if is_text is None:
      is_text = jnp.ones(read.inputs.shape, bool)
    by_token = by_token.reshape(is_text.shape)
    by_window = models.mean_over_scored(by_token, is_text)
    size = model.config.vocab_size
    ids, is_text = read.inputs.reshape(-1), is_text.reshape(-1)
    add = lambda x: jax.ops.segment_sum(x, ids, size)  # noqa: E731
    counts = is_text.astype(jnp.float32)
    sums = add(by_token.reshape(-1) * counts), add(counts)
    return score, by_window, activity, sums

  return jax.lax.map(of_batch, windows)


@functools.cache
def _see_of(length: int) -> Any:
  return functools.partial(_see, num_steps=length)


def _see(layer: MoeInput, output: MoeOutput, *, num_steps: int) -> Any:
  activity = masking.observe_activity(num_steps)(layer, output)
  tokens = moe.token_statistics(layer.routing, layer.token_mask)
  return activity, tokens.num_active
