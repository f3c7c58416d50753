"""What stands between a specialist and the whole model, at one sparsity.

Five questions about the specialists of `peu`: how much of its domain's routing
the kept experts had; what the best set of as many experts is worth, ranked by
the truth or searched for on calibration text; and what a few steps of training
give back, to it and to the whole model; and how many of a domain's best experts
are other domains' too. Letters: V domains, W windows, S
tokens, L layers, E experts.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.compress import measures, stages
from experiments.compress.measures import Bench
from experiments.compress.stages import FEW_SPARSITY, WHOLE, OnRow, Rows, Study
from tanbr_jax import compress, models
from tanbr_jax.compress import ranking
from tanbr_jax.compress.ranking import Selection
from tanbr_jax.training import recovery

# Windows of a training step.
_BATCH = 16


def rows(study: Study, seed: int, on_row: OnRow) -> Rows:
  """Rows of every domain: the kept share of the routing, loss and accuracy."""
  statistics = stages.load_statistics(study, seed)
  truth = stages.load_truth(study, on_row).mean(axis=3)  # [L, E, V]
  windows = stages.draw_windows(study, seed, study.settings.calibration_windows)
  settings = study.settings.headroom
  count = stages.num_kept(FEW_SPARSITY, study.bench.model.config.num_experts)
  found = []
  for domain, one in enumerate(statistics):
    peu = compress.keep_local(compress.score("peu", one), count)
    by_truth = compress.keep_local(truth[:, :, domain], count)
    searched = search(
      study.bench,
      peu,
      windows[domain],
      num_steps=settings.search_steps,
      seed=seed,
    )
    about = {"seed": seed, "domain": study.bench.domains[domain]}
    for name, keep in (
      (WHOLE, None),
      ("peu", peu),
      ("(the truth)", by_truth),
      ("(peu, then swaps)", searched),
    ):
      effect = measures.evaluate(study.bench, keep)
      found.append(
        about
        | {"method": name, "trained": "-", **kept_shares(one, keep)}
        | _of_domain(effect, domain)
      )
      on_row()
    found += [about | row for row in _trained(study, domain, peu, seed)]
    on_row()
  counts = stages.budgets(study).values()
  return found + overlaps(study.bench, statistics, sorted(counts), seed=seed)


def kept_shares(
  statistics: compress.CalibrationStatistics, keep: Selection | None
) -> dict[str, float]:
  """The share of a domain's pairs, and of its gates, of the kept experts.

  Args:
    statistics: of the domain.
    keep: the experts that are kept; None for all.
  """
  if keep is None:
    return {"pairs_kept": 1.0, "gates_kept": 1.0}
  mask = ranking.to_mask(keep, statistics.num_experts)
  share = lambda x: float(np.mean((x * mask).sum(1) / x.sum(1)))  # noqa: E731
  return {
    "pairs_kept": share(np.float64(statistics.num_pairs)),
    "gates_kept": share(statistics.normalised_gates),
  }


def search(
  bench: Bench,
  keep: Selection,
  windows: np.ndarray,
  *,
  num_steps: int,
  seed: int,
) -> Selection:
  """Swaps kept experts for others where that lowers the loss of some text.

  A step proposes one swap in one layer, drawn uniformly, and keeps it if the
  mean loss over all windows falls.

  Args:
    bench: of the whole model.
    keep: [L, M] where it begins.
    windows: [n, S + 1] text.
    num_steps: how many swaps are tried.
    seed: of the draws.
  """
  router = compress.reroute(bench.model, bench.params, keep)
  mask = jnp.asarray(ranking.to_mask(keep, bench.model.config.num_experts))
  found = _search(
    bench.model,
    num_steps,
    bench.params,
    router,
    mask,
    jnp.asarray(windows),
    jax.random.key(seed),
  )
  return ranking.from_mask(np.asarray(found))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(
  model: models.Model,
  num_steps: int,
  params: models.Params,
  router: Partial,
  mask: jax.Array,
  windows: jax.Array,
  key: jax.Array,
) -> jax.Array:
  _, biases = router.args[0]

  def loss(mask: jax.Array) -> jax.Array:
    reroute = Partial(router.func, (mask, biases))
    return jnp.mean(measures.score_windows(model, params, windows, reroute)[0])

  def step(
    state: tuple[jax.Array, jax.Array], key: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    mask, best = state
    layer_key, out_key, in_key = jax.random.split(key, 3)
    layer = jax.random.randint(layer_key, (), 0, len(mask))
    row = mask[layer]
    draw = lambda key, is_one: jax.random.categorical(  # noqa: E731
      key, jnp.where(is_one, 0.0, -jnp.inf)
    )
    swapped = row.at[draw(out_key, row)].set(False)
    swapped = swapped.at[draw(in_key, ~row)].set(True)
    other = mask.at[layer].set(swapped)
    found = loss(other)
    is_better = found < best
    return (
      jnp.where(is_better, other, mask),
      jnp.minimum(found, best),
    ), None

  keys = jax.random.split(key, num_steps)
  return jax.lax.scan(step, (mask, loss(mask)), keys)[0][0]


def _trained(study: Study, domain: int, peu: Selection, seed: int) -> Rows:
  """The specialist and the whole model, trained on the domain's other text."""
  settings = study.settings.headroom
  bench, found = study.bench, []
  if not settings.recovery_steps:
    return found
  # As many windows as the steps can read, of the text that is calibrated on.
  rows = stages.draw_windows(study, seed + 1, settings.recovery_steps * _BATCH)
  for name, (model, params) in (
    (WHOLE, (bench.model, bench.params)),
    ("peu", compress.prune(bench.model, bench.params, peu)),
  ):
    for part in recovery.PARTS:
      trained = recovery.recover(
        model,
        params,
        rows[domain],
        part=part,
        num_steps=settings.recovery_steps,
        batch_size=_BATCH,
        learning_rate=settings.recovery_rate,
        seed=seed,
      )
      own = bench._replace(model=model, params=trained)
      effect = measures.evaluate(own)
      found.append(
        {"method": name, "trained": part, **_of_domain(effect, domain)}
      )
  return found


def _of_domain(effect: measures.Effect, domain: int) -> dict[str, Any]:
  return {
    "loss_in": float(effect.loss[domain]),
    "accuracy_in": float(effect.accuracy[domain]),
  }


def overlaps(
  bench: Bench,
  statistics: Sequence[compress.CalibrationStatistics],
  counts: Sequence[int],
  *,
  seed: int,
) -> Rows:
  """How many of a domain's best experts are another's, mean over pairs.

  Args:
    bench: the model.
    statistics: of each domain.
    counts: how many of the best experts; K is added.
    seed: of the calibration.
  """
  found = [compress.score("peu", one) for one in statistics]
  experts = bench.model.config.num_experts
  rows = []
  for count in sorted({bench.model.config.num_selected, *counts}):
    keep = [compress.keep_local(one, count) for one in found]
    shares = [
      compress.overlap(ours, theirs).mean()
      for i, ours in enumerate(keep)
      for theirs in keep[i + 1 :]
    ]
    if shares:
      rows.append(
        {
          "seed": seed,
          "overlap_of": count,
          "overlap": float(np.mean(shares)),
          "overlap_by_chance": count / experts,
        }
      )
  return rows
