"""Training-free ways to use fewer experts, as a config describes them.

An entry of `config.free` has a "method" of `METHODS`, the fine-tuned model that
it is put "on" ("full" is the model as it was), and options of the method.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments.common import launch
from tanbr_jax import masking, models


def oea_xmoe(model: models.Model, threshold: float, **given: Any) -> Any:
  """OEA whose tokens bring what XMoE would keep."""
  return masking.oea(model, brings=masking.xmoe(model, threshold), **given)


METHODS = {
  "smaller_k": masking.smaller_k,
  "top_p": masking.top_p,
  "xmoe": masking.xmoe,
  "naee_skip": masking.naee_skip,
  "oea": masking.oea,
  "oea_xmoe": oea_xmoe,
  "xshare": masking.xshare,
  "sere": masking.sere,
}
# Those of a whole batch, which come after the masks of what they are put on.
OF_BATCHES = ("oea", "oea_xmoe", "xshare", "sere")
# Options that are not the method's own.
OWN = ("method", "on", "matches", "quantile")


def check(
  name: str, options: Mapping[str, Any], *, known: Sequence[str]
) -> None:
  """Refuses an entry that cannot be made.

  Args:
    name: of the entry.
    options: of it.
    known: what it can be put on.

  Raises:
    ValueError: in one line.
  """
  method = options.get("method", "")
  if method not in METHODS:
    hint = launch.suggest(str(method), METHODS)
    raise ValueError(f"unknown method {method!r} of free.{name}{hint}")
  if options.get("on") not in known:
    raise ValueError(
      f"free.{name}.on must be one of {tuple(known)}, got "
      f"on={options.get('on')!r}"
    )
  given = set(options) - set(OWN)
  allowed = set(inspect.signature(METHODS[method]).parameters)
  allowed -= {"model", "ratios", "similarity", "num_steps", "after"}
  allowed -= {"brings", "given"}
  if unknown := sorted(given - allowed):
    raise ValueError(
      f"unknown option free.{name}.{unknown[0]}"
      f"{launch.suggest(unknown[0], sorted(allowed))}"
    )


class Calibrated:
  """Makes reroutes for one model; what is calibrated is calibrated once."""

  def __init__(
    self,
    model: models.Model,
    params: models.Params,
    input_ids: jax.Array,
    *,
    after: models.Reroute | None,
    num_steps: int,
  ) -> None:
    """Binds a model.

    Args:
      model: with experts.
      params: its parameters.
      input_ids: [B, S] calibration tokens.
      after: the reroute that it is run with, None for its own routers.
      num_steps: S of the evaluation's batches.
    """
    self._model, self._params, self._ids = model, params, input_ids
    self._after, self._num_steps = after, num_steps
    self._similarity: jax.Array | None = None

  def make(self, options: Mapping[str, Any]) -> models.Reroute:
    """The reroute of an entry.

    Raises:
      ValueError: an option is out of its range.
    """
    own = {k: v for k, v in options.items() if k not in OWN}
    method = options["method"]
    arguments: list[Any] = [self._model]
    if method == "naee_skip":
      quantile = options.get("quantile", 0.5)
      arguments.append(
        masking.gate_ratios(
          self._model, self._params, self._ids, quantile=quantile
        )
      )
    if method in OF_BATCHES:
      own |= {"num_steps": self._num_steps, "after": self._after}
    if method == "sere":
      if self._similarity is None:
        self._similarity = masking.expert_similarity(
          self._model, self._params, self._ids
        )
      own["similarity"] = self._similarity
    reroute = METHODS[method](*arguments, **own)
    if options.get("matches", False):
      reroute = masking.match_moments(
        self._model, self._params, self._ids, reroute
      )
    return reroute
