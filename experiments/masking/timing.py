"""Times one layer of experts with masks, beside the same layer without.

  python -m experiments.masking.timing --config=configs/masking/timing.py

A layer is router, top-K, mask router and experts, of random weights; the masks
are those of a mask router whose logits are on with a chosen probability, so
that tokens differ. Calls are chained and queued, forms take turns, every time
is a median (see `timing.device_time`). Beside each time: the pairs and the
distinct experts of the same calls, counted. A last form only reads all the
experts: what takes as many distinct ones cannot be faster.
"""

import dataclasses
import functools
import statistics
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.tree_util import Partial

from experiments.common import launch, readme_block, records
from tanbr_jax import masking, models, moe
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, NonNegative, Range
from tanbr_jax.models import decoder_layer
from tanbr_jax.report import workdir as reporting
from tanbr_jax.timing import device_time
from tanbr_jax.timing.device_time import Job

Shares = tuple[Annotated[float, Range(0, 1, "[]")], ...]
FULL = "full"
READ = "all experts read"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSettings(ranges.Checked):
  """All that is read; see configs/masking/timing.py.

  Attributes:
    models: presets of `models.PRESETS` whose layers are timed.
    dtype: of experts and tokens.
    num_tokens: N of the calls.
    shares: of the K pairs that are on.
    num_own: k0 of the batch-aware choice without masks; after them it is 1.
    repeats: turns.
    min_ms: least time of a form in one turn.
    calls: chained calls of a program.
    least_tokens: tokens of all the inputs that calls take turns at, as one
      token alone has no share of its few pairs.
  """

  models: list[str]
  dtype: str
  num_tokens: tuple[Count, ...]
  shares: Shares
  num_own: Count
  repeats: Count
  min_ms: NonNegative
  calls: Count
  least_tokens: Count


def read(config: ml_collections.ConfigDict) -> LayerSettings:
  """The config as a record; a ValueError of one line if it cannot be."""
  known = models.PRESETS
  names = launch.names(config.models, known=known, kind="model")
  return records.read(LayerSettings, config, models=names)


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Times every model's layer, writes the folder, prints the tables."""
  settings = read(config)
  folder = reporting.open_workdir(workdir, config, seeds=[0])
  summary: dict[str, Any] = {"device": jax.devices()[0].device_kind}
  for name in settings.models:
    shape = models.preset(name, dtype=settings.dtype)
    for num_tokens in settings.num_tokens:
      found = time_layer(settings, shape, num_tokens)
      summary |= {f"{name}/{num_tokens}/{k}": v for k, v in found.items()}
      reporting.write_summary(folder, summary)
    print(table(name, summary))


def time_layer(
  settings: LayerSettings, shape: models.DecoderConfig, num_tokens: int
) -> dict[str, float]:
  """Microseconds, pairs and distinct experts of every form."""
  experts = _experts(shape)
  forms = _forms(settings, shape)
  num_inputs = max(settings.calls, -(-settings.least_tokens // num_tokens))
  jobs = {
    name: Job(functools.partial(_layer, shape), inputs, settings.calls)
    for name, inputs in {
      name: [
        (experts, _tokens(shape, num_tokens, index), reroute)
        for index in range(num_inputs)
      ]
      for name, reroute in forms.items()
    }.items()
  }
  jobs[READ] = Job(_read, [(experts["stack"],)], settings.calls)
  queues = device_time.compile_all(jobs)
  for queue in queues.values():
    if isinstance(queue, Exception):
      raise queue
  took = device_time.call_times(
    queues, repeats=settings.repeats, min_seconds=settings.min_ms / 1e3
  )
  found = {}
  count = jax.jit(functools.partial(_counted, shape))
  for name, job in jobs.items():
    found[f"{name}/microseconds"] = 1e3 * took[name].median
    if name == READ:
      continue
    counts = [jax.device_get(count(*given)) for given in job.inputs]
    found[f"{name}/pairs"] = statistics.fmean(float(p) for p, _ in counts)
    found[f"{name}/distinct"] = statistics.fmean(float(d) for _, d in counts)
  return found


def table(name: str, summary: dict[str, Any]) -> str:
  """Lines of Markdown: a row a form, a column a number of tokens."""
  keys = [key.split("/") for key in summary if key.startswith(f"{name}/")]
  counts = sorted({int(count) for _, count, *_ in keys})
  lines = []
  for form in dict.fromkeys(form for _, _, form, _ in keys):
    cells = [form]
    for count in counts:
      at = f"{name}/{count}"
      took = summary.get(f"{at}/{form}/microseconds")
      if took is None:  # Timed by one of several runs alone.
        cells.append("-")
        continue
      ratio = took / summary[f"{at}/{FULL}/microseconds"]
      cell = f"{took:.0f} us ({ratio:.2f})"
      if form != READ:
        cell += (
          f", {summary[f'{at}/{form}/pairs']:.0f} pairs, "
          f"{summary[f'{at}/{form}/distinct']:.1f} experts"
        )
      cells.append(cell)
    lines.append(cells)
  titles = [f"N={count}" for count in counts]
  title = f"**{name}**, {summary['device']}"
  return f"{title}\n\n{readme_block.table(['form', *titles], lines)}"


def _forms(
  settings: LayerSettings, shape: models.DecoderConfig
) -> dict[str, Partial | None]:
  """Reroutes of one layer by form."""
  model = models.Decoder(dataclasses.replace(shape, num_layers=1))
  forms: dict[str, Partial | None] = {FULL: None}
  for share in settings.shares:
    forms[f"{100 * share:g} % of pairs"] = masking.beam(
      _mask_router(shape, share)
    )
  num_own = min(settings.num_own, shape.num_selected)
  forms[f"OEA, {num_own} own"] = masking.oea(model, num_own)
  for share in settings.shares:
    if share < 1:
      name = f"{100 * share:g} % of pairs"
      forms[f"{name}, then OEA, 1 own"] = masking.oea(
        model, 1, after=forms[name]
      )
  of_layer = lambda leaf: leaf[0]  # noqa: E731
  return {name: jax.tree.map(of_layer, form) for name, form in forms.items()}


def _mask_router(
  shape: models.DecoderConfig, share: float
) -> masking.MaskRouter:
  """Logits that are normal around what is exceeded with that probability."""
  dim, num_experts = shape.model_dim, shape.num_experts
  kernel = jax.random.normal(jax.random.key(3), (1, dim, num_experts))
  bounded = min(max(share, 1e-6), 1 - 1e-6)
  offset = statistics.NormalDist().inv_cdf(bounded) * dim**0.5
  if share in (0.0, 1.0):
    offset *= 100
  # The first of a token's values is one, the others are normal.
  return {"kernel": kernel.at[:, 0].set(offset)}


@functools.partial(jax.jit, static_argnums=0)
def _experts(shape: models.DecoderConfig) -> dict[str, Any]:
  stack = moe.init_experts(
    jax.random.key(0),
    shape.num_experts,
    model_dim=shape.model_dim,
    expert_dim=shape.expert_dim,
    activation=shape.activation,
    is_gated=shape.is_gated,
  )
  size = (shape.model_dim, shape.num_experts)
  router = jax.random.normal(jax.random.key(1), size) * shape.model_dim**-0.5
  cast = lambda leaf: leaf.astype(shape.dtype)  # noqa: E731
  return {"stack": jax.tree.map(cast, stack), "router": {"kernel": router}}


def _tokens(
  shape: models.DecoderConfig, num_tokens: int, index: int
) -> jax.Array:
  key = jax.random.fold_in(jax.random.key(2), index)
  x = jax.random.normal(key, (num_tokens, shape.model_dim), jnp.float32)
  return x.at[:, 0].set(1.0).astype(shape.dtype)


# Traced once for all forms that differ in numbers.
@functools.partial(jax.jit, static_argnums=0)
def _layer(
  shape: models.DecoderConfig,
  params: dict[str, Any],
  x: jax.Array,
  reroute: Partial | None,
  observe: Partial | None = None,
) -> Any:
  """Router, choice and experts, as a decoder's layer has them."""
  logits, routing = decoder_layer.route(params["router"], x, shape)
  out, seen = moe.apply_layer(
    params["stack"], x, logits, routing, reroute=reroute, observe=observe
  )
  return out if observe is None else seen


def _read(stack: moe.Experts) -> list[jax.Array]:
  """Sums of rows, which need every weight."""
  return [
    jnp.sum(leaf, axis=-1, dtype=jnp.float32) for leaf in jax.tree.leaves(stack)
  ]


def _counted(
  shape: models.DecoderConfig,
  params: dict[str, Any],
  x: jax.Array,
  reroute: Partial | None,
) -> Sequence[jax.Array]:
  found = _layer(shape, params, x, reroute, masking.observe_activity())
  return found.num_pairs, found.num_distinct


if __name__ == "__main__":
  launch.start(
    run,
    config="configs/masking/timing.py",
    workdir="runs/masking_timing",
  )
