"""A model served by a policy over radio: loss, accuracy, energy, drops.

Letters: L layers, R realisations, W windows of each, S tokens of a window.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.wireless.radio import Realisations
from tanbr_jax import data, models
from tanbr_jax.wireless import reroutes


class Served(NamedTuple):
  """What a policy gave in every realisation, means over its windows.

  Attributes:
    loss: [R] nats a token.
    accuracy: [R].
    energy_j: [R] joules a token, all layers; inf where it cannot be served.
    dropped: [R] share of pairs that went to no expert.
  """

  loss: np.ndarray
  accuracy: np.ndarray
  energy_j: np.ndarray
  dropped: np.ndarray


class Text(NamedTuple):
  """Windows of text.

  Attributes:
    test: [R W, S + 1], those of a realisation side by side.
    calibration: [n, S + 1].
  """

  test: jax.Array
  calibration: jax.Array


def read_text(
  corpus: data.Corpus,
  *,
  length: int,
  realisations: int,
  windows: int,
  calibration: int,
  seed: int,
) -> Text:
  """Windows of all tasks, shuffled: test text, and validation text."""
  found = {}
  for split, count in (
    ("test", realisations * windows),
    ("validation", calibration),
  ):
    text = data.from_arrays(corpus.splits[split], min_length=length + 1)
    each = -(-count // len(corpus.task_names))
    every = np.asarray(data.evaluation_windows(text, each, length + 1))
    every = every.reshape(-1, length + 1)
    order = np.random.default_rng(seed).permutation(len(every))[:count]
    found[split] = jnp.asarray(every[order])
  return Text(found["test"], found["validation"])


def serve(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  radio: Realisations,
  policy: str,
  **options: Any,
) -> Served:
  """Serves windows [R W, S + 1] by a policy; options as for `reroute`."""
  realisations = len(radio.costs[0])
  each = len(windows) // realisations
  by_window = radio.repeated(each)
  reroute = reroutes.reroute(
    policy,
    marginal_j=by_window.marginal_j,
    latency_s=by_window.latency_s,
    **options,
  )
  score, ids = _apply(model, params, windows, reroute)
  ids = np.asarray(ids)
  energy = reroutes.energies_j(ids, by_window.costs).sum(axis=0)
  tokens = windows.shape[1] - 1
  dropped = (ids < 0).reshape(len(ids), len(windows), -1).mean(axis=(0, 2))
  mean = lambda x: np.asarray(x, np.float64).reshape(-1, each).mean(1)  # noqa: E731
  return Served(
    mean(score.loss), mean(score.accuracy), mean(energy / tokens), mean(dropped)
  )


@functools.partial(jax.jit, static_argnums=0)
def _apply(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  reroute: Partial,
) -> tuple[models.Score, jax.Array]:
  read = data.read_windows(windows)
  logits, ids = model.apply(
    params,
    read.inputs,
    reroute=reroute,
    observe=Partial(reroutes.observe_ids, ()),
  )
  return models.score_logits(logits, read.targets, read.is_scored), ids
