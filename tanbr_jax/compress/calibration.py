"""Reads calibration text and sums up what its experts do.

Letters: B sequences, S tokens of each, N tokens that are no padding, E experts,
K experts per token, L layers, D model width, M kept samples.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from tanbr_jax.checks import names
from tanbr_jax.checks.names import check_choice
from tanbr_jax.compress import expert_utility, observers, statistics
from tanbr_jax.compress.statistics import (
  NEEDS,
  SELECTIONS,
  CalibrationStatistics,
)
from tanbr_jax.models.base import Model, Params
from tanbr_jax.models.fine_tunes import FineTunes
from tanbr_jax.moe.parameters import ARRAYS, is_integer

Batch = Any  # input_ids [B, S], or a pair of them and an attention mask [B, S]
DEFAULT_NEEDS = ("peu", "outputs")
_TOP = ("top_ids", "top_logits")


def calibrate(
  model: Model,
  params: Params,
  batches: Iterable[Batch],
  *,
  domain: str = "text",
  needs: Sequence[str] = DEFAULT_NEEDS,
  selection: str = "logits",
  thresholds: Sequence[expert_utility.Threshold] = ("mean", None),
  max_kept_tokens: int = 2**18,
  max_samples: int = 1024,
  on_batch: Callable[[], object] = lambda: None,
) -> CalibrationStatistics:
  """Returns statistics of all layers of experts on one domain's text.

  Those of several domains, or of parts of the text, add up (`+`). Memory does
  not grow with the text, but for two things that have bounds. PEU's threshold
  "mean" is known after the last token only: until then the K largest logits of
  `max_kept_tokens` tokens are kept, 8 K L bytes each. Longer text is read a
  second time, for which `batches` must be a sequence; both ways give the same
  numbers to the bit. And "samples" are those of the first `max_samples` tokens.

  Args:
    model: a model with experts, but not of fine-tunes.
    params: its parameters.
    batches: each input_ids [B, S], or a pair of them and an attention_mask
      [B, S] whose 0 or False is padding, which is left out.
    domain: a name for the text.
    needs: keys of `statistics.NEEDS`; counts, gates and logits come always.
    selection: which experts PEU takes for a token's K active ones: "logits",
      the K of the largest raw logits, as its equations say; or "used", those
      that the model really uses. They differ where a router has a correction
      bias or groups.
    thresholds: of PEU: "mean", None for none, or numbers.
    max_kept_tokens: see above; 0 for two passes in any case.
    max_samples: M, of "samples".
    on_batch: called after every batch that is read.

  Returns:
    The sums. A domain without a token has zeros, and a line in the log.

  Raises:
    ValueError: if there is no batch, an argument is wrong, or the model has no
      stacked experts.
  """
  _check(model, needs, selection, domain)
  thresholds = expert_utility.check_thresholds(thresholds)
  for name, value in (
    ("max_kept_tokens", max_kept_tokens),
    ("max_samples", max_samples),
  ):
    if not is_integer(value) or value < 0:
      raise ValueError(f"{name} must be an integer of at least 0, got {value}")
  reader = _Reader(model, params, frozenset(needs), selection, max_samples)
  utility = _Utility(
    model, thresholds, max_kept_tokens, iter(batches) is batches
  )
  # One pass over the text.
  for ids, mask in _read(batches):
    seen = reader.read(ids, mask)
    if "peu" in needs:
      utility.look(seen["top_ids"], seen["top_logits"], mask)
    on_batch()
  if not reader.num_batches:
    raise ValueError("batches must hold one batch or more, got none")
  if not reader.num_tokens:
    logging.warning("domain %r has no token: its scores are all 0", domain)
  arrays = reader.finish()
  # And, where the threshold came too late for what was read, another one.
  if "peu" in needs:
    if utility.needs_second_pass:
      again = _Reader(model, params, frozenset(("peu",)), selection, 0)
      for ids, mask in _read(batches):
        seen = again.read(ids, mask)
        utility.add(seen["top_ids"], seen["top_logits"], mask)
        on_batch()
    arrays |= utility.finish()
  return CalibrationStatistics(
    model_digest=statistics.digest_routers(model, params),
    num_selected=model.config.num_selected,
    selection=selection,
    thresholds=thresholds,
    domains=((domain, reader.num_tokens),),
    num_sequences=reader.num_sequences,
    **arrays,
  )


def _check(
  model: Model, needs: Sequence[str], selection: str, domain: str
) -> None:
  names.check_name("domain", domain)
  if model.config.num_experts is None or isinstance(model, FineTunes):
    raise ValueError("model must have stacked experts to be calibrated")
  if isinstance(needs, str) or (unknown := sorted(set(needs) - set(NEEDS))):
    wrong = needs if isinstance(needs, str) else unknown[0]
    raise ValueError(f"needs must be of {tuple(NEEDS)}, got {wrong!r}")
  check_choice("selection", selection, SELECTIONS)


def _read(
  batches: Iterable[Batch],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Every batch's tokens and mask."""
  for batch in batches:
    ids, mask = batch if isinstance(batch, tuple) else (batch, None)
    ids = np.asarray(ids)
    mask = np.ones(ids.shape, bool) if mask is None else np.asarray(mask)
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or mask.shape != ids.shape:
      raise ValueError(
        "a batch must be integers [B, S] with a mask of that shape, got "
        f"{ids.dtype}{list(ids.shape)} and {list(mask.shape)}"
      )
    yield ids.astype(np.int32), mask.astype(bool)


class _Reader:
  """Sums up what the observer sees, in float64."""

  def __init__(
    self,
    model: Model,
    params: Params,
    needs: frozenset[str],
    selection: str,
    max_samples: int,
  ) -> None:
    self._model, self._params = model, params
    self._needs, self._selection = needs, selection
    self._max_samples = max_samples
    self._samples: dict[str, list[np.ndarray]] = {}
    self._num_samples = 0
    self._sums: dict[str, Any] = {}
    self.num_tokens = self.num_sequences = self.num_batches = 0

  def read(self, ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Reads a batch; returns what is not summed up here."""
    needs = self._needs - {"gradients"}
    # What is kept once is enough is not sent to the host either.
    if self._num_samples >= self._max_samples and self._samples:
      needs -= {"samples"}
    observe = observers.observer(
      self._model, self._params, needs, self._selection
    )
    seen = _see(self._model, self._params, ids, mask, observe)
    if "gradients" in self._needs:
      squares = _squared_gradients(self._model, self._params, ids, mask)
      seen["squared_gradients"] = squares
    seen = jax.tree.map(np.asarray, seen)
    self.num_tokens += int(mask.sum())
    self.num_sequences += int(mask.any(axis=1).sum())
    self.num_batches += 1
    self._keep(seen, mask.reshape(-1))
    rest = {name: seen.pop(name) for name in _TOP if name in seen}
    wide = jax.tree.map(lambda x: x.astype(np.float64), seen)
    for name, value in wide.items():
      before = self._sums.get(name)
      if before is None:
        self._sums[name] = value
      elif name == "largest_output":
        self._sums[name] = np.maximum(before, value)
      else:
        self._sums[name] = jax.tree.map(np.add, before, value)
    return rest

  def _keep(self, seen: dict[str, Any], mask: np.ndarray) -> None:
    room = self._max_samples - self._num_samples
    for name in ("sample_inputs", "sample_logits"):
      if name in seen:
        kept = seen.pop(name)[:, mask][:, :room]
        self._samples.setdefault(name, []).append(kept)
        self._num_samples = sum(x.shape[1] for x in self._samples[name])

  def finish(self) -> dict[str, Any]:
    """All fields but those of PEU's threshold."""
    samples = {
      name: np.concatenate(parts, axis=1)
      for name, parts in self._samples.items()
    }
    return self._sums | samples


class _Utility:
  """The sums of PEU's scores: one pass over kept logits, or two over text."""

  def __init__(
    self,
    model: Model,
    thresholds: tuple[expert_utility.Threshold, ...],
    max_kept_tokens: int,
    is_once: bool,
  ) -> None:
    shape = len(model.config.moe_layers), model.config.num_experts
    self._thresholds, self._max_kept = thresholds, max_kept_tokens
    self._is_once = is_once
    self._kept: list[tuple[np.ndarray, np.ndarray]] | None = []
    self._num_kept = 0
    self._scores = np.zeros((len(thresholds), 4, *shape))
    self._selected = np.zeros(shape)
    # Sum, largest and number of the largest probabilities, by layer.
    self._top = np.zeros((shape[0], 2))
    self._count = 0

  @property
  def needs_second_pass(self) -> bool:
    """Whether the text has to be read again."""
    return self._kept is None

  def look(self, ids: np.ndarray, logits: np.ndarray, mask: np.ndarray) -> None:
    """Takes a batch's A(x) [L, B S, K] in the first pass."""
    rows = mask.reshape(-1)
    ids, logits = ids[:, rows], logits[:, rows]
    for layer, values in enumerate(logits):
      total, most, _ = expert_utility.top_probability(values)
      self._top[layer, 0] += total
      self._top[layer, 1] = max(self._top[layer, 1], most)
    self._count += int(rows.sum())
    if self._kept is None:
      return
    self._num_kept += int(rows.sum())
    self._kept.append((ids, logits))
    if "mean" not in self._thresholds:
      self._add_rows(*self._kept.pop())
    elif self._num_kept > self._max_kept:
      if self._is_once:
        raise ValueError(
          "text of more than max_kept_tokens is read twice for the threshold "
          "'mean' and must be a sequence of batches, got an iterator and "
          f"max_kept_tokens={self._max_kept}"
        )
      self._kept = None

  def add(self, ids: np.ndarray, logits: np.ndarray, mask: np.ndarray) -> None:
    """Takes a batch's A(x) in the second pass."""
    rows = mask.reshape(-1)
    self._add_rows(ids[:, rows], logits[:, rows])

  def _add_rows(self, ids: np.ndarray, logits: np.ndarray) -> None:
    num_experts = self._selected.shape[1]
    for layer in range(len(ids)):
      own = ids[layer], logits[layer], num_experts
      for place, one in enumerate(self._thresholds):
        r = one
        if one == "mean":
          r = expert_utility.mean_threshold(*self._top[layer], self._count)
        self._scores[place, :, layer] += expert_utility.sum_scores(*own, r)
      self._selected[layer] += expert_utility.sum_scores(*own, None)[1]

  def finish(self) -> dict[str, np.ndarray]:
    """The fields of "peu"."""
    for ids, logits in self._kept or ():
      self._add_rows(ids, logits)
    return {
      "peu": self._scores,
      "selected_logits": self._selected,
      "top_probability": self._top[:, 0],
    }


@functools.partial(jax.jit, static_argnums=0)
def _see(
  model: Model, params: Params, ids: jax.Array, mask: jax.Array, observe: Any
) -> dict[str, jax.Array]:
  return model.apply(params, ids, attention_mask=mask, observe=observe)[1]


@functools.partial(jax.jit, static_argnums=0)
def _squared_gradients(
  model: Model, params: Params, ids: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """[L, E, ...] for each array of the experts, summed over sequences."""
  names_of_layers = [f"layer_{layer}" for layer in model.config.moe_layers]
  stacks = [params["params"][n]["experts"]["stack"] for n in names_of_layers]
  own = [
    {n: getattr(s, n) for n in ARRAYS if getattr(s, n) is not None}
    for s in stacks
  ]

  def log_likelihood(
    own: list[dict[str, jax.Array]], ids: jax.Array, mask: jax.Array
  ) -> jax.Array:
    layers = dict(params["params"])
    for name, stack, arrays in zip(names_of_layers, stacks, own, strict=True):
      experts = layers[name]["experts"]
      stack = stack.__class__(
        **arrays,
        shared=stack.shared,
        shared_gate=stack.shared_gate,
        activation=stack.activation,
      )
      layers[name] = {**layers[name], "experts": {**experts, "stack": stack}}
    logits = model.apply(
      {"params": layers}, ids[None], attention_mask=mask[None]
    )[0, :-1]
    chosen = jnp.take_along_axis(logits, ids[1:, None], axis=-1)[:, 0]
    gain = chosen - jax.nn.logsumexp(logits, axis=-1)
    return jnp.sum(jnp.where(mask[1:] & mask[:-1], gain, 0))

  def add(
    sums: list[dict[str, jax.Array]], sequence: tuple[jax.Array, jax.Array]
  ) -> tuple[list[dict[str, jax.Array]], None]:
    slope = jax.grad(log_likelihood)(own, *sequence)
    square = lambda s, g: s + jnp.square(g.astype(jnp.float32))  # noqa: E731
    return jax.tree.map(square, sums, slope), None

  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), own)
  sums, _ = jax.lax.scan(add, zeros, (ids, mask))
  return jax.tree.map(lambda *layers: jnp.stack(layers), *sums)
