"""Selects an operation's implementation, or says why one cannot run."""

import functools
import importlib
from collections.abc import Callable, Hashable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
from jax import lax

_FIRST_GPU_VERSION = (0, 11)


def _always(*args: Any) -> None:
  """The `why_not` of an implementation that can run anything."""


class Implementation(NamedTuple):
  """One way to run an operation.

  Attributes:
    run: takes the operation's arguments.
    why_not: takes the same arguments and returns None if `run` can take them
      on the default device, or the reason why it cannot.
  """

  run: Callable[..., Any]
  why_not: Callable[..., str | None] = _always


def select(
  implementation: str | None, table: Mapping[str, Implementation], *args: Any
) -> Callable[..., Any]:
  """Returns the `run` of that name; None is the first one that can run.

  Args:
    implementation: a key of `table`, or None.
    table: name -> implementation, the preferred one first. One of them can
      run anything.
    *args: what `run` will be called with; only shapes and types are read.

  Raises:
    ValueError: if there is no implementation of that name, or it cannot run
      with these arguments on this device.
  """
  if implementation is None:
    choices = table.values()
    return next(each.run for each in choices if each.why_not(*args) is None)
  if implementation not in table:
    raise ValueError(
      "implementation must be None or one of "
      f"{sorted(table)}, got implementation={implementation!r}"
    )
  reason = table[implementation].why_not(*args)
  if reason is not None:
    raise ValueError(f"implementation={implementation!r} cannot run: {reason}")
  return table[implementation].run


def platform() -> str:
  """Returns the default device's platform: "cpu", "gpu" or "tpu"."""
  device = jax.config.jax_default_device
  if device is None:
    return jax.default_backend()
  return device if isinstance(device, str) else device.platform


def why_not_mosaic_gpu(operation: str, *details: Any) -> str | None:
  """Returns why a kernel for Hopper GPUs cannot run here, or None.

  Args:
    operation: a function of `mosaic_gpu`, such as "grouped_matmul".
    *details: shapes, type and whatever else its `supports_...` asks for.
  """
  if platform() not in ("gpu", "cuda"):
    return f"it needs a GPU, the default device is a {platform()}"
  if jax.__version_info__ < _FIRST_GPU_VERSION:
    return f"it needs jax >= 0.11 on a GPU, got jax {jax.__version__}"
  try:
    kernels = mosaic_gpu()
  except ImportError as error:
    return f"its kernels cannot be imported: {error}"
  return kernels.why_not() or getattr(kernels, f"supports_{operation}")(
    *details
  )


def mosaic_gpu() -> ModuleType:
  """Imports the kernels for Hopper GPUs: older versions of jax lack parts."""
  return importlib.import_module("tanbr_jax.kernels.mosaic_gpu")


@functools.cache
def on_platform(
  name: str,
  kernel: Callable[..., Any],
  reference: Callable[..., Any],
  *static: Hashable,
) -> Callable[..., Any]:
  """Returns a function that runs the kernel where it was compiled for.

  A process whose default device is an accelerator may still compute on its
  CPU, which is known when the program is lowered and not before: there the
  reference runs. `vmap` loops over the batch, as kernels have no batch axis.

  Args:
    name: a platform of `lax.platform_dependent`, such as "cuda".
    kernel: takes the static arguments and then arrays, returns arrays; need
      not be differentiable. A function of a module and no closure: outside of
      jit, a new function would be compiled in every call.
    reference: takes and returns the same.
    *static: arguments that are not arrays.
  """
  branches = {
    name: functools.partial(kernel, *static),
    "default": functools.partial(reference, *static),
  }

  @jax.custom_batching.sequential_vmap
  def run(*args: Any) -> Any:
    return lax.platform_dependent(*args, **branches)

  return run
