"""The stages of the study: each makes rows of one seed.

Letters: V domains, S tokens, M experts kept in a layer.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compress import costs, measures, methods, truth
from experiments.compress.measures import Bench
from experiments.compress.settings import CompressSettings
from tanbr_jax import compress, data, models
from tanbr_jax.compress.ranking import Selection
from tanbr_jax.storage import atomic

Rows = list[dict[str, Any]]
Statistics = list[compress.CalibrationStatistics]
OnRow = Callable[[], object]
# Of the stages that compare few methods.
FEW_SPARSITY = 0.5
WHOLE = "(all experts)"


class Study(NamedTuple):
  """A model with its calibration and test text.

  Attributes:
    settings: of the study.
    bench: the model and its test text.
    text: of V domains, which calibration windows are drawn from.
    folder: the run's.
  """

  settings: CompressSettings
  bench: Bench
  text: data.TaskText
  folder: Path


def prepare(
  settings: CompressSettings,
  corpus: data.Corpus,
  model: Any,
  params: Any,
  folder: Path,
) -> Study:
  """Cuts test windows and prompts; validation text is calibrated on."""
  length = settings.source.context + 1
  count = settings.max_domains or len(corpus.task_names)
  text = {
    split: data.from_arrays(
      corpus.splits[split][:count], min_length=length, stride=corpus.stride
    )
    for split in ("validation", "test")
  }
  windows = data.evaluation_windows(text["test"], settings.test_windows, length)
  # Prompts are the test windows' beginnings: the new tokens still fit.
  cut = length - 1 - settings.new_tokens
  prompts = data.token_ids(windows[:, : settings.prompts, :cut])
  bench = Bench(
    model,
    params,
    tuple(corpus.task_names[:count]),
    windows,
    prompts,
    settings.new_tokens,
    None,
  )
  if settings.match_sparsities:
    bench = bench._replace(said=measures.continuations(bench))
  return Study(settings, bench, text["validation"], folder)


def num_kept(sparsity: float, num_experts: int) -> int:
  """M, the experts of a layer that are kept at a sparsity."""
  return max(1, round((1 - sparsity) * num_experts))


def budgets(study: Study) -> dict[float, int]:
  """Sparsity -> M, of the sparsities at which K experts are left."""
  config = study.bench.model.config
  found = {
    s: num_kept(s, config.num_experts) for s in study.settings.sparsities
  }
  return {s: m for s, m in found.items() if m >= config.num_selected}


def run_methods(study: Study, seed: int, on_row: OnRow) -> Rows:
  """Every method, sparsity and scope."""
  statistics = load_statistics(study, seed)
  everything = range(len(study.bench.domains))
  rows = []
  # Methods often agree: what was measured is not measured again.
  known: dict[Any, dict[str, float]] = {}

  def add(keep: Selection, domains: Sequence[int], **about: Any) -> None:
    is_one = len(domains) == 1
    about["domain"] = study.bench.domains[domains[0]] if is_one else "all"
    has_match = about["sparsity"] in study.settings.match_sparsities
    key = tuple(domains), tuple(map(tuple, keep)), has_match
    if key not in known:
      known[key] = measures.in_and_out(
        study.bench, keep, domains, has_match=has_match
      )
    rows.append({"seed": seed, **about, **known[key]})
    on_row()

  # The whole model first, which the others are compared with.
  config = study.bench.model.config
  whole = [np.arange(config.num_experts)] * len(config.moe_layers)
  about = {"method": WHOLE, "sparsity": 0.0}
  for domain in everything:
    add(whole, [domain], scope="specialist", **about)
  add(whole, everything, scope="generalist by tokens", **about)
  for (sparsity, count), name in itertools.product(
    budgets(study).items(), study.settings.methods
  ):
    about = {"method": name, "sparsity": sparsity}
    is_scored = bool(methods.METHODS[name].score)
    num_sets = math.comb(config.num_experts, count)
    if not is_scored and num_sets > methods.MAX_SETS:
      continue
    for domain in everything:
      keep = _select(study, name, statistics[domain : domain + 1], count, seed)
      add(keep, [domain], scope="specialist", **about)
    for pooling in compress.scores.POOLINGS[: 1 + is_scored]:
      keep = _select(study, name, statistics, count, seed, pooling=pooling)
      add(keep, everything, scope=f"generalist by {pooling}", **about)
    if name == "peu":
      keep = _union(study, statistics, count)
      add(keep, everything, scope="union", **about)
  return rows


def _select(
  study: Study,
  name: str,
  statistics: Statistics,
  count: int,
  seed: int,
  **options: Any,
) -> Selection:
  model, params = study.bench.model, study.bench.params
  return methods.select(
    name, model, params, statistics, count, seed=seed, **options
  )


def _union(study: Study, statistics: Statistics, count: int) -> Selection:
  found = [compress.score("peu", one) for one in statistics]
  order = compress.rank(compress.generalist("peu", statistics))
  return methods.with_at_least(
    methods.union(found, count), order, study.bench.model.config.num_selected
  )


def run_samples(study: Study, seed: int, on_row: OnRow) -> Rows:
  """How many calibration windows of a domain its specialist needs."""
  windows = draw_windows(study, seed, max(study.settings.sample_counts))
  rows = []
  for samples in study.settings.sample_counts:
    rows += _few_rows(study, windows[:, :samples], seed, samples=samples)
    on_row()
  return rows


def run_own_text(study: Study, seed: int, on_row: OnRow) -> Rows:
  """Calibration on the model's own continuations, on text, on prompts alone."""
  windows = draw_windows(study, seed, study.settings.calibration_windows)
  ids = np.array(data.token_ids(jnp.asarray(windows)))
  length = ids.shape[2] - 1  # the last token is predicted and not read
  half = length // 2
  own = ids.copy()
  for domain in range(len(own)):
    own[domain, :, half:length] = models.generate(
      study.bench.model,
      study.bench.params,
      jnp.asarray(own[domain, :, :half]),
      max_new_tokens=length - half,
      temperature=1.0,
      key=jax.random.key(20_000 + 1000 * seed + domain),
      eos_token_ids=(),
      pad_token_id=0,
    )
  texts = {
    "given text": ids,
    "own continuation": own,
    "prompt alone": ids[:, :, : half + 1],
  }
  rows = []
  for name, text in texts.items():
    rows += _few_rows(study, text, seed, text=name)
    on_row()
  return rows


def _few_rows(
  study: Study, windows: np.ndarray, seed: int, **about: Any
) -> Rows:
  """The specialists of few methods, calibrated on windows [V, n, S + 1]."""
  names = study.settings.few_methods
  statistics = calibrate(study, windows, methods.needs(names))
  count = num_kept(FEW_SPARSITY, study.bench.model.config.num_experts)
  rows = []
  for name, domain in itertools.product(names, range(len(statistics))):
    own = {"method": name, "domain": study.bench.domains[domain]}
    keep = _select(study, name, statistics[domain : domain + 1], count, seed)
    measured = measures.in_and_out(study.bench, keep, [domain])
    rows.append({"seed": seed, **about, **own, **measured})
  return rows


def run_truth(study: Study, seed: int, on_row: OnRow) -> Rows:
  """Every score against what leaving an expert out does to the loss."""
  changes = load_truth(study, on_row)
  names = [n for n in study.settings.methods if n in methods.SCORED]
  return truth.rows(names, load_statistics(study, seed), changes, seed=seed)


def run_costs(study: Study, seed: int, on_row: OnRow) -> Rows:
  """Bytes, distinct experts and decode time at every sparsity."""
  statistics = load_statistics(study, seed)
  chosen: dict[float, Selection | None] = {0.0: None}
  for sparsity, count in budgets(study).items():
    chosen[sparsity] = _select(study, "peu", statistics, count, seed)
  rows = costs.rows(study.bench, chosen, study.settings, study.folder)
  on_row()
  return rows


def run_merging(study: Study, seed: int, on_row: OnRow) -> Rows:
  """Every merging method, by the registry."""
  from experiments.compress import merging_rows

  return merging_rows.rows(study, seed, on_row)


def run_headroom(study: Study, seed: int, on_row: OnRow) -> Rows:
  """What stands between a specialist and the whole model."""
  from experiments.compress import headroom

  return headroom.rows(study, seed, on_row)


def load_truth(study: Study, on_row: OnRow) -> np.ndarray:
  """[L, E, V, W], see `measures.leave_one_out`; kept in the run's folder."""
  path = study.folder / "truth.npz"
  if path.exists():
    return atomic.read_arrays(path)[0]["changes"]
  changes = measures.leave_one_out(study.bench, on_row).astype(np.float32)
  atomic.write_arrays(path, {"changes": changes})
  return changes


def draw_windows(study: Study, seed: int, count: int) -> np.ndarray:
  """[V, count, S + 1], calibration windows that the seed draws."""
  length = study.bench.windows.shape[2]
  keys = jax.random.split(
    jax.random.key(10_000 + seed), len(study.bench.domains)
  )
  rows = [
    data.sample_task_windows(
      key, study.text, jnp.full(count, domain, jnp.int32), length
    )
    for domain, key in enumerate(keys)
  ]
  return np.stack(rows)


def calibrate(
  study: Study, windows: np.ndarray, needs: Sequence[str]
) -> Statistics:
  """The statistics of every domain's windows [V, n, S + 1]."""
  found = []
  for name, rows in zip(study.bench.domains, windows, strict=True):
    read = data.read_windows(jnp.asarray(rows))
    is_text = np.ones(read.inputs.shape, bool)
    if read.is_text is not None:
      is_text = np.asarray(read.is_text)
    # Whole batches, the last one with padding: one program for any number.
    size = study.settings.batch_size
    room = ((0, -len(rows) % size), (0, 0))
    inputs, is_text = np.pad(read.inputs, room), np.pad(is_text, room)
    batches = [
      (inputs[i : i + size], is_text[i : i + size])
      for i in range(0, len(inputs), size)
    ]
    found.append(
      compress.calibrate(
        study.bench.model,
        study.bench.params,
        batches,
        domain=name,
        needs=needs,
        max_samples=study.settings.max_samples,
      )
    )
  return found


def load_statistics(study: Study, seed: int) -> Statistics:
  """Every domain's, of the seed's windows; kept in the run's folder."""
  paths = [
    study.folder / "statistics" / f"{seed}-{domain}.npz"
    for domain in range(len(study.bench.domains))
  ]
  if all(path.exists() for path in paths):
    return [compress.load_statistics(path) for path in paths]
  begin = time.perf_counter()
  windows = draw_windows(study, seed, study.settings.calibration_windows)
  found = calibrate(study, windows, methods.needs(study.settings.methods))
  seconds = time.perf_counter() - begin
  for path, one in zip(paths, found, strict=True):
    compress.save_statistics(path, one)
  about = {"tokens": compress.total(found).num_tokens, "seconds": seconds}
  atomic.write_json(study.folder / "statistics" / f"{seed}.json", about)
  return found


STAGES: dict[str, Callable[[Study, int, OnRow], Rows]] = {
  "methods": run_methods,
  "samples": run_samples,
  "own_text": run_own_text,
  "truth": run_truth,
  "costs": run_costs,
  "merging": run_merging,
  "headroom": run_headroom,
}
# Those that are run for each calibration seed; the others once.
BY_SEED = ("methods", "samples", "own_text", "truth", "merging", "headroom")
