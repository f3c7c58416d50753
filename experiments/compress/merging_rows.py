"""Merging: the gap of merged experts to the routed model, method by method.

Letters: V domains, E experts, G groups, K experts per token.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compress import measures, stages
from experiments.compress.stages import FEW_SPARSITY, WHOLE, OnRow, Rows, Study
from tanbr_jax import compress, data, models, moe
from tanbr_jax.compress import merging
from tanbr_jax.compress.merging import assembly
from tanbr_jax.models.alignment import reorder_neurons
from tanbr_jax.training import recovery

Statistics = dict[str, compress.CalibrationStatistics]
# The forms that experts are merged to.
ONE, GROUPS = "one block", "groups"
# What may be done besides a method, in the tables' order.
PLAIN, ALIGNED, SCALED, BOTH = "plain", "aligned", "scaled", "aligned, scaled"
# It matches neurons itself.
_NEVER_ALIGNED = ("zip_it",)
_RECOVERY_BATCH = 16


class Merged(NamedTuple):
  """A model to measure.

  Attributes:
    form: what it is made of.
    method: how.
    variant: what else was done.
    model: of the form.
    params: its parameters.
  """

  form: str
  method: str
  variant: str
  model: models.Model
  params: models.Params


def rows(study: Study, seed: int, on_row: OnRow) -> Rows:
  """Every method into one block and into groups, pruning beside them.

  All are generalists: they are calibrated on all domains alike and measured on
  all. Groups halve the experts. A row has the loss and accuracy of given text
  and the share of greedy continuations that stays.
  """
  windows = stages.draw_windows(study, seed, study.settings.calibration_windows)
  found = []
  statistics = _calibrate(study, windows, _needs(study))
  # By identity, beside the parameters so that they live: what alignment left as
  # it was is not measured again.
  known: dict[int, tuple[models.Params, dict[str, float]]] = {}
  for merged in itertools.chain(
    _forms(study, statistics, windows),
    _recovered(study, statistics, windows, seed),
  ):
    key = id(merged.params)
    if key not in known:
      effect = measure(study, merged.model, merged.params)
      known = {key: (merged.params, effect), **dict([*known.items()][:1])}
    found.append(
      {
        "seed": seed,
        "form": merged.form,
        "method": merged.method,
        "variant": merged.variant,
        **known[key][1],
      }
    )
    on_row()
  return found


def measure(
  study: Study, model: models.Model, params: models.Params
) -> dict[str, float]:
  """Expert bytes, and the mean effect over all domains."""
  bench, size = study.bench, models.expert_bytes(params)
  if _has_groups(model, params):
    # With copies it is the whole model's program, whatever the groups.
    model, params = compress.with_copies(model, params)
  score = _score(model, params, bench.windows)
  row = {
    "loss": float(jnp.mean(score.loss)),
    "accuracy": float(jnp.mean(score.accuracy)),
    "expert_bytes": size,
  }
  if bench.said is not None:
    said = measures.say(bench, model, params)
    row["match"] = measures.match(said, bench.said)
  return row


def _has_groups(model: models.Model, params: models.Params) -> bool:
  name = f"layer_{model.config.moe_layers[0]}"
  routes = params["params"][name]["experts"].get("routes")
  return routes is not None and moe.NO_EXPERT not in routes.expert_of


def num_groups(study: Study) -> int | None:
  """G, half of the experts; None where a token would choose more."""
  config = study.bench.model.config
  count = stages.num_kept(FEW_SPARSITY, config.num_experts)
  return count if max(2, config.num_selected) <= count else None


def _forms(
  study: Study, statistics: Statistics, windows: np.ndarray
) -> Iterator[Merged]:
  """The whole model, then all that is merged or pruned."""
  model, params = study.bench.model, study.bench.params
  yield Merged(ONE, WHOLE, PLAIN, model, params)
  read = data.read_windows(jnp.asarray(windows).reshape(-1, windows.shape[-1]))
  count = num_groups(study)
  for groups in (1, count) if count is not None else (1,):
    form = ONE if groups == 1 else GROUPS
    for name in study.settings.merging.methods:
      plain = None
      for align in (False, True)[: 1 + (name not in _NEVER_ALIGNED)]:
        small, merged = compress.MERGES[name](
          model,
          params,
          statistics,
          num_groups=groups,
          align=align,
          **_options(study, name),
        )
        variants = (ALIGNED, BOTH) if align else (PLAIN, SCALED)
        if plain is not None and _are_equal(merged, plain[0]):
          yield Merged(form, name, ALIGNED, small, plain[0])
          yield Merged(form, name, BOTH, small, plain[1])
          continue
        yield Merged(form, name, variants[0], small, merged)
        scaled = models.match_scale(
          model,
          params,
          merged,
          read.inputs,
          attention_mask=read.is_text,
          batch_size=study.settings.batch_size,
        )
        yield Merged(form, name, variants[1], small, scaled)
        plain = merged, scaled
    yield from _in_order(study, statistics, windows, groups)
    yield from _shuffled(study, statistics, groups)
  if count is not None:
    yield from _beside(study, statistics, count)


def _are_equal(ours: models.Params, theirs: models.Params) -> bool:
  """Whether all parameters are, to the bit."""
  return all(
    bool(jnp.array_equal(one, other))
    for one, other in zip(
      jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True
    )
  )


def _in_order(
  study: Study, statistics: Statistics, windows: np.ndarray, groups: int
) -> Iterator[Merged]:
  """Methods whose statistics are of the model merged so far, as published."""
  model, params = study.bench.model, study.bench.params
  form = ONE if groups == 1 else GROUPS
  for name, published, options in (
    ("reg_mean", "(RegMean++)", {}),
    ("ream", "(REAM as published)", {"router": "centres"}),
  ):
    if name not in study.settings.merging.methods:
      continue
    needs = compress.merge_needs(name, num_groups=groups)

    def take(
      model: models.Model, params: models.Params, needs: Any = needs
    ) -> Statistics:
      bench = study.bench._replace(model=model, params=params)
      return _calibrate(study._replace(bench=bench), windows, needs)

    made = compress.MERGES[name](
      model, params, take, num_groups=groups, **options
    )
    yield Merged(form, published, ALIGNED if name == "ream" else PLAIN, *made)


def _shuffled(
  study: Study, statistics: Statistics, groups: int
) -> Iterator[Merged]:
  """The average by use of the same experts with their neurons shuffled.

  No expert computes anything else, and the average something else altogether:
  what alignment is for, where experts have no origin in common.
  """
  model = study.bench.model
  stacks = assembly.stacks_of(model, study.bench.params)
  draws = np.random.default_rng(0)
  shuffled = []
  for stack in stacks:
    orders = np.tile(np.arange(stack.w_in.shape[2]), (stack.num_experts, 1))
    orders = draws.permuted(orders, axis=1).astype(np.int32)
    shuffled.append(reorder_neurons(stack, orders))
  params = assembly.replace_stacks(model, study.bench.params, shuffled)
  for align in (False, True):
    made = compress.MERGES["frequency"](
      model, params, statistics, num_groups=groups, align=align
    )
    yield Merged(
      ONE if groups == 1 else GROUPS,
      "(frequency, neurons shuffled)",
      ALIGNED if align else PLAIN,
      *made,
    )


def _beside(
  study: Study, statistics: Statistics, count: int
) -> Iterator[Merged]:
  """What else has as many experts: pruning, and constants for what is cut."""
  model, params = study.bench.model, study.bench.params
  found = compress.total(statistics.values())
  keep = compress.keep_local(compress.score("reap", found), count)
  pruned = compress.prune(model, params, keep)
  yield Merged(GROUPS, "(pruned by REAP)", PLAIN, *pruned)
  means = found.outputs / np.maximum(found.num_pairs, 1)[:, :, None]
  constants = compress.with_constants(model, params, keep, means)
  yield Merged(GROUPS, "(MoNE: constants)", PLAIN, *constants)


def _recovered(
  study: Study, statistics: Statistics, windows: np.ndarray, seed: int
) -> Iterator[Merged]:
  """Merged models, and the whole one, after a few steps of training."""
  settings = study.settings.merging
  if not settings.recovery_steps:
    return
  model, params = study.bench.model, study.bench.params
  forms = [(ONE, WHOLE, model, params)]
  count = num_groups(study)
  for name in settings.recovery_methods:
    for groups in (1, count) if count is not None else (1,):
      made = compress.MERGES[name](
        model,
        params,
        statistics,
        num_groups=groups,
        **_options(study, name),
      )
      forms.append((ONE if groups == 1 else GROUPS, name, *made))
  rows = windows.reshape(-1, windows.shape[-1])
  for form, name, small, start in forms:
    if name != WHOLE:
      yield Merged(form, name, "not trained", small, start)
    for part in recovery.PARTS:
      if part == "router" and small.config.num_experts is None:
        continue
      trained = recovery.recover(
        small,
        start,
        rows,
        part=part,
        num_steps=settings.recovery_steps,
        batch_size=min(_RECOVERY_BATCH, len(rows)),
        learning_rate=settings.recovery_rate,
        seed=seed,
      )
      yield Merged(form, name, f"trained: {part}", small, trained)


def _needs(study: Study) -> list[str]:
  """What calibration has to look at for all methods."""
  settings = study.settings.merging
  needs = {"outputs", *compress.merge_needs("frequency", num_groups=2)}
  for name in (*settings.methods, *settings.recovery_methods):
    needs |= set(compress.merge_needs(name, num_groups=2))
  return sorted(needs)


def _calibrate(
  study: Study, windows: np.ndarray, needs: Sequence[str]
) -> Statistics:
  """Statistics of every domain."""
  found = stages.calibrate(study, windows, needs)
  return dict(zip(study.bench.domains, found, strict=True))


def _options(study: Study, method: str) -> dict[str, Any]:
  """Of a method: the mix of all domains alike."""
  if "task_mix" not in merging.CATALOGUE[method].options:
    return {}
  domains = study.bench.domains
  return {"task_mix": dict.fromkeys(domains, 1 / len(domains))}


@functools.partial(jax.jit, static_argnums=0)
def _score(
  model: models.Model, params: models.Params, windows: jax.Array
) -> models.Score:
  """[V, W] each, of any form."""
  return jax.lax.map(
    lambda one: measures.score_windows(model, params, one), windows
  )
