"""What a selection of experts does to a model: loss, accuracy, continuations.

Letters: V domains, W windows of each, S tokens, L layers, E experts, K experts
per token, B sequences.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import compress, data, models
from tanbr_jax.compress.ranking import Selection
from tanbr_jax.models import scoring


class Bench(NamedTuple):
  """A model and the text that it is measured on.

  Attributes:
    model: with experts.
    params: its parameters.
    domains: V names.
    windows: [V, W, S + 1] test text.
    prompts: [V, P, S - N] tokens whose continuations are compared.
    new_tokens: N.
    said: [V, P, N], what the whole model says after the prompts; None where
      continuations are not compared.
  """

  model: models.Model
  params: models.Params
  domains: tuple[str, ...]
  windows: jax.Array
  prompts: jax.Array
  new_tokens: int
  said: np.ndarray | None


class Effect(NamedTuple):
  """Means over each domain's windows.

  Attributes:
    loss: [V], nats a token.
    accuracy: [V].
  """

  loss: np.ndarray
  accuracy: np.ndarray


def evaluate(bench: Bench, keep: Selection | None = None) -> Effect:
  """Scores the test text with the kept experts; None for all of them."""
  found = by_window(bench, keep)
  return Effect(found.loss.mean(1), found.accuracy.mean(1))


def by_window(bench: Bench, keep: Selection | None = None) -> Effect:
  """`evaluate` with values [V, W] of each window."""
  score = _score(bench.model, bench.params, bench.windows, _mask(bench, keep))
  return Effect(
    *(np.asarray(x, np.float64) for x in (score.loss, score.accuracy))
  )


def in_and_out(
  bench: Bench,
  keep: Selection,
  domains: Sequence[int],
  *,
  has_match: bool = False,
) -> dict[str, float]:
  """Loss, accuracy and kept continuations in some domains and out of them.

  Args:
    bench: the model and its test text.
    keep: the experts that are kept.
    domains: which are in.
    has_match: whether greedy continuations are compared with the model's own.
  """
  found = evaluate(bench, keep)._asdict()
  if has_match:
    said = continuations(bench, keep)
    found["match"] = np.array(
      [match(one, whole) for one, whole in zip(said, bench.said, strict=True)]
    )
  is_in = np.isin(np.arange(len(bench.domains)), domains)
  row = {"kept": float(np.mean([len(ids) for ids in keep]))}
  for name, values in found.items():
    row[f"{name}_in"] = float(values[is_in].mean())
    if not is_in.all():
      row[f"{name}_out"] = float(values[~is_in].mean())
  return row


def _mask(bench: Bench, keep: Selection | None) -> Partial:
  config = bench.model.config
  if keep is None:
    # The same program for all.
    keep = [np.arange(config.num_experts)] * len(config.moe_layers)
  return compress.reroute(bench.model, bench.params, keep)


@functools.partial(jax.jit, static_argnums=0)
def _score(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  reroute: Partial,
) -> models.Score:
  return jax.lax.map(
    lambda one: score_windows(model, params, one, reroute), windows
  )


def score_windows(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  reroute: Partial | None = None,
) -> models.Score:
  """[n] each, of windows [n, S + 1]."""

  def part(windows: jax.Array) -> models.Score:
    read = data.read_windows(windows)
    logits = model.apply(
      params, read.inputs, attention_mask=read.is_text, reroute=reroute
    )
    return models.score_logits(logits, read.targets, read.is_scored)

  return scoring.over_windows(part, windows, vocab_size=model.config.vocab_size)


def continuations(bench: Bench, keep: Selection | None = None) -> np.ndarray:
  """[V, P, N], what the model with the kept experts says after every prompt."""
  return say(bench, bench.model, bench.params, _mask(bench, keep))


def say(
  bench: Bench, model: Any, params: Any, reroute: Partial | None = None
) -> np.ndarray:
  """[V, P, N], what a model says after every prompt, greedily.

  All prompts are one batch: few tokens are decoded as fast as one.
  """
  prompts = bench.prompts
  said = models.generate(
    model,
    params,
    prompts.reshape(-1, prompts.shape[2]),
    max_new_tokens=bench.new_tokens,
    eos_token_ids=(),
    pad_token_id=0,
    reroute=reroute,
  )
  return np.asarray(said).reshape(*prompts.shape[:2], -1)


def match(ours: np.ndarray, theirs: np.ndarray) -> float:
  """The mean share of new tokens [..., N] before the first that differs."""
  is_same = np.cumprod(ours == theirs, axis=-1)
  return float(is_same.mean())


def routing_ids(bench: Bench, model: Any, params: Any) -> np.ndarray:
  """[L, V W, S, K], the experts that each test token goes to."""
  ids = []
  for windows in bench.windows:
    read = data.read_windows(windows)
    seen = routed_ids(model, params, read.inputs)
    ids.append(np.asarray(seen).reshape(len(seen), *read.inputs.shape, -1))
  return np.concatenate(ids, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def routed_ids(
  model: models.Model, params: models.Params, inputs: jax.Array
) -> jax.Array:
  """[L, B S, K], the experts of tokens [B, S]."""
  return model.apply(params, inputs, observe=Partial(_ids))[1]


def _ids(layer: models.MoeInput, output: models.MoeOutput) -> jax.Array:
  del output
  return layer.routing.expert_ids


def distinct_experts(ids: np.ndarray, batch_size: int, *, seed: int) -> float:
  """The mean number of experts of a layer that a step of B sequences reads.

  A step takes the tokens at one position of B windows of all domains.

  Args:
    ids: [L, V W, S, K], of `routing_ids`.
    batch_size: B.
    seed: of the draws.
  """
  rng = np.random.default_rng(seed)
  num_layers, num_windows, length, _ = ids.shape
  counts = []
  for _ in range(64):
    rows = rng.choice(num_windows, batch_size, replace=True)
    tokens = ids[:, rows, rng.integers(length)].reshape(num_layers, -1)
    counts.append(np.mean([np.unique(row).size for row in tokens]))
  return float(np.mean(counts))


def leave_one_out(bench: Bench, on_expert: Any) -> np.ndarray:
  """[L, E, V, W], the loss without each expert, less that of the model."""
  config = bench.model.config
  whole = by_window(bench).loss
  layers, experts = len(config.moe_layers), config.num_experts
  changes = np.zeros((layers, experts, *whole.shape))
  for layer in range(layers):
    for expert in range(experts):
      keep = [np.arange(experts)] * layers
      keep[layer] = np.delete(keep[layer], expert)
      changes[layer, expert] = by_window(bench, keep).loss - whole
      on_expert()
  return changes
