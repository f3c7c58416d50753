"""Processes of the shares of the tasks among a slot's requests.

A `MixProcess` is three pure functions over a pytree, like an environment. The
sequence of mixes depends on the keys alone, never on the weights played.
Every process visits concentrated mixes, in which one or two tasks dominate:
under a broad mix the best static weights and the best weights for the mix are
almost the same, and there is nothing to learn. The paper varies the mix between
slots but does not give its law, so that all processes are a [R]
reconstruction. Letters: V tasks.
"""

from collections.abc import Mapping
from typing import Any

from tanbr_jax.checks.names import check_choice
from tanbr_jax.environments.mixes.base import MixProcess, check_mix_length
from tanbr_jax.environments.mixes.fixed import fixed
from tanbr_jax.environments.mixes.smooth import drift, periodic
from tanbr_jax.environments.mixes.switching import abrupt, bursty, piecewise

__all__ = [
  "PROCESSES",
  "MixProcess",
  "abrupt",
  "bursty",
  "check_mix_length",
  "create",
  "drift",
  "fixed",
  "periodic",
  "piecewise",
]

PROCESSES = {
  "abrupt": abrupt,
  "bursty": bursty,
  "drift": drift,
  "fixed": fixed,
  "periodic": periodic,
  "piecewise": piecewise,
}


def create(
  name: str, *, num_tasks: int, options: Mapping[str, Any] | None = None
) -> MixProcess:
  """The process called `name`.

  Args:
    name: a name of `PROCESSES`.
    num_tasks: V.
    options: further arguments of the constructor of that name.

  Returns:
    A `MixProcess`.

  Raises:
    ValueError: if the name is unknown or an option is out of range.
  """
  check_choice("task_mix", name, PROCESSES)
  try:
    return PROCESSES[name](num_tasks=num_tasks, **(options or {}))
  except TypeError as error:
    raise ValueError(f"task_mix {name!r}: {error}") from error
