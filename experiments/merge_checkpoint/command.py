"""Merges a checkpoint's experts and writes the dense checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from experiments.merge_checkpoint import calibration, costs, sources
from tanbr_jax import models
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count
from tanbr_jax.models.huggingface import dense_writing, reading
from tanbr_jax.storage import atomic

SCALES = ("off", "scalar", "per_dimension")
RECORD = "merge.json"
_BATCH = 4  # sequences that are read at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(ranges.Checked):
  """What is merged, with which weights, and how.

  Attributes:
    checkpoint: folder of a model with experts.
    output: the new folder.
    weights: for `sources.given_weights`; or "".
    usage: whether the weights are each layer's usage of its experts.
    state: folder of a finished online run; or "".
    method: of that run.
    text: calibration tokens, see `sources.read_ids`; "" for none.
    length: tokens of a calibration sequence.
    sequences: how many there are.
    scale: one of `SCALES`, see `models.match_scale`.
    align: whether neurons are aligned first, to the expert of the most weight.
  """

  checkpoint: str
  output: str
  weights: str = ""
  usage: bool = False
  state: str = ""
  method: str = ""
  text: str = ""
  length: Count = 512
  sequences: Count = 32
  scale: str = "off"
  align: bool = False

  def __post_init__(self) -> None:
    """Refuses what contradicts itself.

    Raises:
      ValueError: in one line.
    """
    super().__post_init__()
    for name in ("checkpoint", "output"):
      if not getattr(self, name):
        raise ValueError(f"{name} must be given")
    given = [n for n in ("weights", "usage", "state") if getattr(self, n)]
    if len(given) != 1:
      raise ValueError(
        f"give one of weights, usage and state, got {given or 'none of them'}"
      )
    if self.scale not in SCALES:
      raise ValueError(f"scale must be one of {SCALES}, got {self.scale!r}")
    if self.method and not self.state:
      raise ValueError(f"method needs state, got method={self.method!r}")
    if self.needs_text != bool(self.text):
      word = "need" if self.needs_text else "alone read"
      raise ValueError(
        f"usage and a scale {word} calibration text, got text={self.text!r}, "
        f"usage={self.usage}, scale={self.scale!r}"
      )

  @property
  def needs_text(self) -> bool:
    """Whether calibration tokens are read."""
    return self.usage or self.scale != "off"


def run(settings: Settings, *, progress: bool = True) -> None:
  """Merges as the settings say, writes the folder and prints the table.

  Raises:
    ValueError: before any tensor is read, if something cannot be as asked.
  """
  # Everything that can be wrong, from names, headers and small files.
  output = Path(settings.output)
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    raise ValueError(f"{str(output)!r} must be a new or an empty folder")
  routed = reading.check(settings.checkpoint).model
  config = routed.config
  if config.num_experts is None or not config.moe_layers:
    raise ValueError(f"{settings.checkpoint!r} has no experts to merge")
  home = dense_writing.find_home(routed)
  weights, method = _known_weights(settings, config)
  ids = None
  if settings.needs_text:
    ids = sources.read_ids(
      settings.text,
      settings.checkpoint,
      vocab_size=config.vocab_size,
      length=min(settings.length, config.context or settings.length),
      num_sequences=settings.sequences,
    )
  before, after = costs.costs(routed), costs.costs(home)
  # Then what takes long.
  batches = 0 if ids is None else -(-len(ids) // _BATCH)
  steps = 3 + settings.align * len(config.moe_layers)
  steps += batches * (settings.usage + (settings.scale != "off"))
  with tqdm.tqdm(total=steps, desc="reading", disable=not progress) as bar:
    dense, params, weights = _merge(settings, weights, ids, bar)
    bar.set_description("writing")
    record = {
      **dataclasses.asdict(settings),
      "method": method,
      "merge_weights": np.asarray(weights),
      **costs.as_record(before, after),
    }
    text = json.dumps(atomic.jsonable(record), indent=2) + "\n"
    side_files = (*dense.origin.side_files, (RECORD, text.encode()))
    origin = dataclasses.replace(dense.origin, side_files=side_files)
    dense = dataclasses.replace(dense, origin=origin)
    models.save_dense(dense, params, output)
    bar.update()
  print(costs.table(before, after))
  print(f"{home.origin.family} in {output}")


def _known_weights(
  settings: Settings, config: models.DecoderConfig
) -> tuple[np.ndarray | None, str]:
  """The weights, None where usage decides, and the method that played them."""
  num_experts = config.num_experts
  if settings.weights:
    return sources.given_weights(
      settings.weights,
      num_experts=num_experts,
      num_layers=len(config.moe_layers),
    ), ""
  if settings.state:
    return sources.played_weights(
      settings.state, settings.method, num_experts=num_experts
    )
  return None, ""


def _merge(
  settings: Settings,
  weights: np.ndarray | None,
  ids: np.ndarray | None,
  bar: Any,
) -> tuple[models.Decoder, models.Params, jax.Array]:
  """The dense model, its parameters and the weights."""
  if not settings.align and not settings.needs_text:
    # Nothing is asked of the experts all at once.
    weights = jnp.asarray(weights)
    found = models.merge_pretrained(settings.checkpoint, weights)
    bar.update(2)
    return *found, weights
  model, params = models.from_pretrained(settings.checkpoint)
  bar.update()
  options = {"batch_size": _BATCH, "on_batch": bar.update}
  if settings.usage:
    bar.set_description("usage")
    weights = calibration.usage_weights(model, params, ids, **options)
  weights = jnp.asarray(weights)
  if settings.align:
    bar.set_description("aligning")
    layers = len(model.config.moe_layers)
    by_layer = np.broadcast_to(weights, (layers, weights.shape[-1]))
    params = models.align_experts(
      model,
      params,
      reference=by_layer.argmax(axis=1).tolist(),
      on_layer=bar.update,
    )
  bar.set_description("merging")
  dense, merged = models.merge(model, params, weights)
  bar.update()
  if settings.scale != "off":
    bar.set_description("scaling")
    merged = models.match_scale(
      model, params, merged, ids, mode=settings.scale, **options
    )
  return dense, merged, weights
