"""Calls of PyTorch functions that are queued and timed beside JAX's chains."""

from collections.abc import Callable, Sequence
from typing import Any


def why_not() -> str | None:
  """None if PyTorch can be timed on a GPU, or the reason."""
  try:
    import torch
  except ImportError:
    return "PyTorch is not installed"
  if not torch.cuda.is_available():
    return "PyTorch has no CUDA device"
  return None


def device() -> str:
  """The name of PyTorch's device."""
  import torch

  return "cuda" if torch.cuda.is_available() else "cpu"


def graph_pool() -> Any:
  """Returns memory that graphs share, after freeing what earlier ones left."""
  import torch

  if device() == "cpu":
    return None
  torch.cuda.empty_cache()
  return torch.cuda.graph_pool_handle()


class TorchQueue:
  """Calls on all sets of inputs, as one CUDA graph where it can be.

  Attributes:
    calls: sets of inputs; one program calls the function on each of them.
    timing: "graph" or "queued".
  """

  def __init__(
    self,
    function: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    *,
    can_capture: bool = True,
    pool: Any = None,
  ) -> None:
    """Warms up and captures.

    Args:
      function: what is timed.
      inputs: sets of its arguments.
      can_capture: whether it never waits for the device.
      pool: memory that graphs share, of `torch.cuda.graph_pool_handle`.
    """
    import torch

    is_gpu = device() == "cuda"
    can_capture = can_capture and is_gpu

    # What is not captured waits for the device and is slow.
    self._inputs = list(inputs) if can_capture else list(inputs)[:8]
    self._function = function
    self.calls = len(self._inputs)
    self._wait = torch.cuda.synchronize if is_gpu else lambda: None
    self._graph = None
    with torch.no_grad():
      self._call_all()
      self._wait()
      if can_capture:
        self._graph = torch.cuda.CUDAGraph()
        # JAX's threads use the same device: what they do is not captured,
        # and must not spoil the capture.
        with torch.cuda.graph(
          self._graph, pool=pool, capture_error_mode="relaxed"
        ):
          self._call_all()
    self.timing = "graph" if can_capture else "queued"

  def _call_all(self) -> None:
    for arguments in self._inputs:
      self._function(*arguments)

  def run(self, programs: int) -> None:
    """Queues the calls and waits for them."""
    import torch

    with torch.no_grad():
      for _ in range(programs):
        if self._graph is None:
          self._call_all()
        else:
          self._graph.replay()
    self._wait()


def attempt(
  function: Callable[..., Any],
  inputs: Sequence[tuple[Any, ...]],
  **options: Any,
) -> TorchQueue | Exception:
  """A queue with these options, or what was raised instead."""
  try:
    return TorchQueue(function, inputs, **options)
  except Exception as error:  # One that cannot run must not stop the others.
    return error
