"""What calibration text tells of every layer's experts, as sums that add up.

The statistics of two domains add up to those of both: sums are added, largest
values compared, kept samples joined. All is NumPy on the host, float64 where it
is a sum. Letters: N tokens that are no padding, E experts, K experts per token,
L layers, D model width, F an expert's hidden width, M kept samples, R
thresholds; s router logits, g gates as the model uses them, f_e(x) an expert's
output before its gate, X_e the tokens that went to expert e.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tanbr_jax.models.base import Model, Params
from tanbr_jax.storage import atomic

# What may be asked of `calibrate`, and what it is there for.
NEEDS: Mapping[str, str] = {
  "peu": "the K largest router logits of every token",
  "outputs": "norms and means of the experts' outputs for their own tokens",
  "all_outputs": "means of every expert's output for all tokens",
  "inputs": "second moments of what each expert reads",
  "activations": "first and second moments of each expert's hidden units",
  "gradients": "squared gradients of the log-likelihood of each sequence",
  "profiles": "inner products of the experts' router logits over tokens",
  "leave_one_out": "the change of a layer's output without each expert",
  "samples": "some tokens' inputs and router logits as they are",
}
TRANSFORMS = ("max_sigmoid", "identity", "sigmoid", "exp")
SELECTIONS = ("logits", "used")
_FORMAT = "tanbr_jax calibration statistics 1"


def _field(need: str | None, how: str = "sum") -> Any:
  # Those of `routing` are always there.
  default = dataclasses.MISSING if need is None else None
  return dataclasses.field(default=default, metadata={"need": need, "how": how})


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationStatistics:
  """Statistics of a model's experts on calibration text.

  A field is None where it was not asked for (`needs` of `calibrate`).

  Attributes:
    model_digest: of the routers that the text went through.
    num_selected: K.
    selection: "logits" where the tokens' A(x) of PEU and of `selected_logits`
      is the K largest raw logits, "used" where it is what the model used.
    thresholds: the R thresholds of `peu`: "mean", None or a number each.
    domains: (name, N) of every domain; N may be 0.
    num_sequences: how many with a token were read.
    num_pairs: [L, E], |X_e|.
    probability: [L, E], sum over all tokens of the router's probability.
    selected_probability: [L, E], that sum over X_e alone: gates before any
      scaling of a softmax router.
    gates: [L, E], sum over X_e of g.
    normalised_gates: [L, E], that of gates scaled to sum to 1 for each token.
    logits: [L, E], sum over all tokens of s.
    selected_logits: [L, E], sum of s over the tokens with e in A(x).
    top_probability: [L], sum of the largest probability of the softmax over
      A(x).
    peu: [R, 4, L, E], sums of PEU's token scores for each threshold and for
      each of `TRANSFORMS`; under a "mean" threshold each domain that was
      calibrated on its own is under its own.
    output_norms: [L, E], sum over X_e of |f_e|.
    gated_norms: [L, E], sum over X_e of g |f_e|.
    normalised_gated_norms: [L, E], that with gates that sum to 1.
    easy_ep: [L, E], sum over X_e of g |f_e| max(0, 1 - cos(h, h + m)) with h
      the residual stream and m the sum of g f_e, to which a norm or a scale
      behind the layer is not applied; NaN where the model does not tell the
      stream.
    largest_output: [L, E], the largest absolute value in any f_e.
    outputs: [L, E, D], sum over X_e of f_e.
    gated_outputs: [L, E, D], sum over X_e of g f_e.
    all_outputs: [L, E, D], sum over all tokens of f_e.
    input_moments: [L, E, D, D], sum over X_e of x x'.
    hidden: [L, E, F], sum over X_e of the hidden units u, which `w_out` reads.
    hidden_moments: [L, E, F, F], sum over X_e of u u'.
    squared_gradients: name in `Experts` -> [L, E, ...], sum over sequences of
      the squared derivative of the sequence's log-likelihood.
    logit_products: [L, E, E], sum over all tokens of s_i s_j.
    probability_products: [L, E, E], that of the routers' probabilities.
    leave_one_out: [L, E], sum over all tokens of |F(x) - F_-e(x)|^2, where F is
      the layer and in F_-e the router does not know of expert e.
    sample_inputs: [L, M, D] float32, what a layer's experts read.
    sample_logits: [L, M, E] float32, what its router said.
  """

  model_digest: str
  num_selected: int
  selection: str
  thresholds: tuple[str | float | None, ...]
  domains: tuple[tuple[str, int], ...]
  num_sequences: int
  num_pairs: np.ndarray = _field(None)
  probability: np.ndarray = _field(None)
  selected_probability: np.ndarray = _field(None)
  gates: np.ndarray = _field(None)
  normalised_gates: np.ndarray = _field(None)
  logits: np.ndarray = _field(None)
  selected_logits: np.ndarray | None = _field("peu")
  top_probability: np.ndarray | None = _field("peu")
  peu: np.ndarray | None = _field("peu")
  output_norms: np.ndarray | None = _field("outputs")
  gated_norms: np.ndarray | None = _field("outputs")
  normalised_gated_norms: np.ndarray | None = _field("outputs")
  easy_ep: np.ndarray | None = _field("outputs")
  largest_output: np.ndarray | None = _field("outputs", "max")
  outputs: np.ndarray | None = _field("outputs")
  gated_outputs: np.ndarray | None = _field("outputs")
  all_outputs: np.ndarray | None = _field("all_outputs")
  input_moments: np.ndarray | None = _field("inputs")
  hidden: np.ndarray | None = _field("activations")
  hidden_moments: np.ndarray | None = _field("activations")
  squared_gradients: Mapping[str, np.ndarray] | None = _field("gradients")
  logit_products: np.ndarray | None = _field("profiles")
  probability_products: np.ndarray | None = _field("profiles")
  leave_one_out: np.ndarray | None = _field("leave_one_out")
  sample_inputs: np.ndarray | None = _field("samples", "join")
  sample_logits: np.ndarray | None = _field("samples", "join")

  @property
  def num_layers(self) -> int:
    """L."""
    return self.num_pairs.shape[0]

  @property
  def num_experts(self) -> int:
    """E."""
    return self.num_pairs.shape[1]

  @property
  def num_tokens(self) -> int:
    """N, of all domains."""
    return sum(count for _, count in self.domains)

  @property
  def empty_domains(self) -> tuple[str, ...]:
    """The domains without a token, for which every score is 0."""
    return tuple(name for name, count in self.domains if not count)

  def need(self, need: str, *, method: str) -> None:
    """Refuses a method whose statistics were not asked for.

    Raises:
      ValueError: if `need`, a key of `NEEDS`, was not in `needs`.
    """
    if any(getattr(self, name) is None for name in fields_of(need)):
      raise ValueError(
        f"{method} needs {NEEDS[need]}: calibrate(needs=({need!r}, ...))"
      )

  def check_model(self, model: Model, params: Params | None = None) -> None:
    """Refuses another model than the one that was calibrated.

    Args:
      model: of L layers and E experts.
      params: whose routers are compared; None compares shapes alone.

    Raises:
      ValueError: if it is another one.
    """
    config = model.config
    shape = len(config.moe_layers), config.num_experts, config.num_selected
    ours = self.num_layers, self.num_experts, self.num_selected
    if shape != ours:
      raise ValueError(
        f"statistics are of another model, got (L, E, K) = {ours} for a model "
        f"of {shape}"
      )
    if params is not None and digest_routers(model, params) != (
      self.model_digest
    ):
      raise ValueError(
        "statistics are of another model: its routers have other parameters"
      )

  def __add__(self, other: "CalibrationStatistics") -> "CalibrationStatistics":
    """The statistics of both texts.

    Raises:
      ValueError: if they are of other models, or were taken otherwise.
    """
    for name in ("model_digest", "num_selected", "selection", "thresholds"):
      ours, theirs = getattr(self, name), getattr(other, name)
      if ours != theirs:
        raise ValueError(
          f"statistics with different {name} do not add up, got {ours!r} and "
          f"{theirs!r}"
        )
    domains = dict(self.domains)
    for name, count in other.domains:
      domains[name] = domains.get(name, 0) + count
    added = {
      field.name: _combine(
        field, getattr(self, field.name), getattr(other, field.name)
      )
      for field in array_fields()
    }
    return dataclasses.replace(
      self,
      domains=tuple(domains.items()),
      num_sequences=self.num_sequences + other.num_sequences,
      **added,
    )


def array_fields() -> tuple[dataclasses.Field, ...]:
  """The fields of `CalibrationStatistics` that hold arrays."""
  fields = dataclasses.fields(CalibrationStatistics)
  return tuple(field for field in fields if "how" in field.metadata)


def fields_of(need: str | None) -> tuple[str, ...]:
  """The names of the fields that a key of `NEEDS` stands for."""
  return tuple(
    field.name for field in array_fields() if field.metadata["need"] == need
  )


def _combine(field: dataclasses.Field, ours: Any, theirs: Any) -> Any:
  if (ours is None) != (theirs is None):
    raise ValueError(
      f"statistics do not add up: {field.name} was asked of one of them alone"
    )
  if ours is None:
    return None
  if isinstance(ours, Mapping):
    return {name: ours[name] + theirs[name] for name in ours}
  if field.metadata["how"] == "max":
    return np.maximum(ours, theirs)
  if field.metadata["how"] == "join":
    return np.concatenate((ours, theirs), axis=1)
  return ours + theirs


def total(
  statistics: Iterable[CalibrationStatistics],
) -> CalibrationStatistics:
  """The statistics of all texts, one domain or several.

  Raises:
    ValueError: if there are none, or they do not add up.
  """
  found = list(statistics)
  if not found:
    raise ValueError("statistics must be of one domain or more, got none")
  result = found[0]
  for other in found[1:]:
    result = result + other
  return result


def digest_routers(model: Model, params: Params) -> str:
  """A checksum of the routers' parameters, by which a model is recognised."""
  arrays = {}
  for layer in model.config.moe_layers:
    router = params["params"][f"layer_{layer}"]["experts"].get("router", {})
    arrays |= {f"{layer}/{name}": np.asarray(x) for name, x in router.items()}
  return atomic.digest_arrays(arrays)


def save_statistics(
  path: str | os.PathLike[str], statistics: CalibrationStatistics
) -> None:
  """Writes statistics to one file, whole or not at all."""
  arrays = {}
  for field in array_fields():
    value = getattr(statistics, field.name)
    if isinstance(value, Mapping):
      arrays |= {f"{field.name}/{name}": one for name, one in value.items()}
    elif value is not None:
      arrays[field.name] = value
  header = {
    "format": _FORMAT,
    "fields": [
      field.name
      for field in array_fields()
      if getattr(statistics, field.name) is not None
    ],
    **{
      field.name: getattr(statistics, field.name)
      for field in dataclasses.fields(statistics)
      if "how" not in field.metadata
    },
  }
  atomic.write_arrays(path, arrays, header=header)


def load_statistics(path: str | os.PathLike[str]) -> CalibrationStatistics:
  """Reads what `save_statistics` wrote.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged, or is no such file.
  """
  arrays, header = atomic.read_arrays(path)
  if header.pop("format", None) != _FORMAT:
    raise ValueError(f"{str(path)!r} holds no calibration statistics")
  values: dict[str, Any] = {}
  for name in header.pop("fields"):
    if name in arrays:
      values[name] = arrays[name]
    else:
      prefix = name + "/"
      values[name] = {
        key.removeprefix(prefix): array
        for key, array in arrays.items()
        if key.startswith(prefix)
      }
  header["domains"] = tuple(
    (str(name), int(count)) for name, count in header["domains"]
  )
  header["thresholds"] = tuple(header["thresholds"])
  return CalibrationStatistics(**header, **values)
