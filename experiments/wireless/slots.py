"""Learner and radio together, against each alone; see `wireless_slots`. [R].

Streams: `siftmoe` (one budget for all layers, the best one on validation text),
`budgets` (a learner chooses each layer's), `merging` (a learner merges, all is
served at the user), `together` (a learner merges what stands in for skipping,
within the budget that is best on validation text for the plain average).
"uniform" never learns.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import streams
from experiments.wireless import radio
from experiments.wireless.studies import Ready
from tanbr_jax import data
from tanbr_jax.environments import Environment, mixes, wireless_slots
from tanbr_jax.online import estimates, rollout
from tanbr_jax.online.trace import Trace
from tanbr_jax.report import workdir as reporting

_MIX = {"rate": 0.005, "concentration": 0.1}
_CHUNK = 50


def play(
  ready: Ready, corpus: data.Corpus, *, folder: Path, progress: bool
) -> tuple[dict[str, Trace], dict[str, Any]]:
  """Plays every stream with every method.

  Returns:
    Traces by `<stream>/<method>`, and flat figures.
  """
  slots, model = ready.settings.slots, ready.model
  length, num_tasks = ready.text.test.shape[1] - 1, len(corpus.task_names)
  text, windows = _text(corpus, "test", length)
  # The user has room for one FFN of a layer: an expert, or the average.
  held = {
    act: make_radio(ready, num_local=local, tokens=length)
    for act, local in (("budgets", 1), ("merge_weights", 0))
  }

  def environment(act: str, share: float, **options: Any) -> Environment:
    return wireless_slots.wireless_slots(
      model,
      ready.params,
      **{"text": text, "windows": windows, **options},
      radio=held[act],
      task_mix=mixes.create("drift", num_tasks=num_tasks, options=_MIX),
      act=act,
      share=share,
      joules_weight=slots.joules_weight,
      requests_per_slot=slots.requests,
      context=length,
    )

  even = even_budgets(len(model.config.moe_layers))
  validation = dict(
    zip(("text", "windows"), _text(corpus, "validation", length), strict=True)
  )
  tried = (
    environment(
      "budgets", slots.share, candidates=jnp.asarray(even), **validation
    )
    .step.args[1]
    .table
  )
  best = even[int(np.argmax(np.asarray(tried.rewards).mean(axis=1)))]
  average = jnp.full(
    (1, model.config.num_experts), 1 / model.config.num_experts
  )
  shares = slots.share * np.linspace(0.2, 2.0, 10)
  tried = [
    environment("merge_weights", share, candidates=average, **validation)
    .step.args[1]
    .table.rewards
    for share in shares
  ]
  share = float(shares[int(np.argmax([float(r.mean()) for r in tried]))])
  traces = {}
  flat = {
    "slots_share_siftmoe": float(slots.share * (1 - best[-1])),
    "slots_share_together": share,
  }
  learners = {name: {} for name in slots.methods}
  both = {"uniform": {}, **learners}
  for stream, act, budget, methods in (
    ("siftmoe", "budgets", slots.share, {"fixed": {"weights": best}}),
    ("budgets", "budgets", slots.share, learners),
    ("merging", "merge_weights", np.inf, both),
    ("together", "merge_weights", share, both),
  ):
    options = {"candidates": jnp.asarray(even)} if act == "budgets" else {}
    played = environment(act, budget, **options)
    corners = played.step.args[1].table.weights.shape[1]
    for method, chosen in methods.items():
      name = f"{stream}/{method}"
      traces[name] = rollout.run(
        streams.construct(
          method, chosen, num_experts=corners, num_tasks=num_tasks
        ),
        played,
        num_rounds=slots.num_rounds,
        seeds=range(slots.num_seeds),
        chunk_size=_CHUNK,
        workdir=folder,
        progress=progress,
        name=name,
        loop="map",
      )
      flat |= _figures(name, traces[name], played, windows)
  alone = traces["siftmoe/fixed"].expected_reward.astype(np.float64)
  for name, trace in traces.items():
    above = (trace.expected_reward - alone).mean(axis=1)
    flat |= reporting.estimate_entries(
      f"slots/{name}/above", estimates.mean(above)
    )
  return traces, flat


def even_budgets(num_layers: int) -> np.ndarray:
  """[11, L + 1] float32: all layers alike, from none of the budget to all."""
  spent = np.linspace(0, 1, 11)[:, None]
  layers = np.repeat(spent / num_layers, num_layers, axis=1)
  return np.concatenate([layers, 1 - spent], axis=1).astype(np.float32)


def _text(
  corpus: data.Corpus, split: str, length: int
) -> tuple[data.TaskText, jax.Array]:
  """A split, and 8 windows of each task of it."""
  text = data.from_arrays(corpus.splits[split], min_length=length + 1)
  return text, data.evaluation_windows(text, 8, length + 1)


def make_radio(
  ready: Ready, *, num_local: int, tokens: int
) -> wireless_slots.Radio:
  """The realisations as arrays of a program."""
  settings = dataclasses.replace(ready.settings.radio, num_local=num_local)
  realised = radio.realise(
    settings,
    ready.model,
    seed=ready.settings.seed,
    realisations=ready.settings.sweep.realisations,
    tokens=tokens,
  )
  energy = np.array([[one.energy_j for one in row] for row in realised.costs])
  with np.errstate(over="ignore"):
    energy = np.moveaxis(energy, 1, 0).astype(np.float32)
  return wireless_slots.Radio(
    jnp.asarray(energy),
    jnp.asarray(ready.table, jnp.float32),
    jnp.float32(settings.local_compute_j),
  )


def _figures(
  name: str, trace: Trace, environment: Environment, windows: jax.Array
) -> dict[str, Any]:
  """Rewards of the slots; accuracy and energy of the last quarter's weights."""
  quarter = max(1, trace.num_rounds // 4)
  rewards = trace.expected_reward.astype(np.float64)
  weights = trace.merge_weights[:, -quarter:].astype(np.float64).mean(axis=1)
  settings, arrays = environment.step.args[:2]
  flat_windows = windows.reshape(-1, windows.shape[-1])
  count = arrays.radio.energy_j.shape[0]
  turns = jnp.asarray(np.arange(len(flat_windows)) % count, jnp.int32)
  serve = jax.jit(wireless_slots.serve)
  found = []
  for one in weights / weights.sum(axis=1, keepdims=True):
    served = serve(
      settings, arrays, flat_windows, turns, jnp.asarray(one, jnp.float32)
    )
    found.append([float(jnp.mean(part)) for part in served[1:]])
  accuracy, joules = np.array(found).T
  flat: dict[str, Any] = {}
  for key, values in (
    ("reward", rewards.mean(axis=1)),
    ("last_quarter", rewards[:, -quarter:].mean(axis=1)),
    ("accuracy", accuracy),
    ("energy_mj", 1e3 * joules),
  ):
    flat |= reporting.estimate_entries(
      f"slots/{name}/{key}", estimates.mean(values)
    )
  return flat
