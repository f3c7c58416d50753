import dataclasses

import jax.numpy as jnp
import kernel_reference
import numpy as np
import pytest

from experiments.kernels import rows as kernel_rows
from experiments.kernels import torch_block, torch_queue, transformers_block
from experiments.kernels.shapes import Shape
from tanbr_jax import moe

torch = pytest.importorskip("torch")

GATED = Shape("gated", 4, 2, 16, 32, renormalise=True, shared_dim=32)
PLAIN = Shape("plain", 4, 1, 16, 32, activation="relu", is_gated=False)


def make_weights(shape):
  """The same float32 weights for PyTorch, and for a loop in float64."""
  rng = np.random.default_rng(0)
  dim, hidden, count = shape.model_dim, shape.expert_dim, shape.num_experts

  def draw(*size):
    return rng.normal(size=size) * size[-2] ** -0.5

  ours = {
    "router": draw(dim, count),
    "w_gate": draw(count, dim, hidden) if shape.is_gated else None,
    "w_in": draw(count, dim, hidden),
    "w_out": draw(count, hidden, dim),
    "shared": None,
  }
  up = [ours["w_in"]]
  if shape.is_gated:
    up = [ours["w_gate"], ours["w_in"]]
  theirs = torch_block.Weights(
    router=tensor(ours["router"]),
    up=tensor(np.concatenate(up, -1)),
    down=tensor(ours["w_out"]),
  )
  if shape.shared_dim:
    wide = [draw(dim, shape.shared_dim) for _ in range(2)]
    narrow = draw(shape.shared_dim, dim)
    ours["shared"] = (*wide, narrow)
    theirs = theirs._replace(
      shared_up=tensor(np.concatenate(wide, -1)), shared_down=tensor(narrow)
    )
  return ours, theirs


def tensor(array):
  """Inputs last, as PyTorch keeps them."""
  out = np.swapaxes(array, -1, -2).astype(np.float32)
  return torch.from_numpy(np.ascontiguousarray(out))


@pytest.mark.parametrize("shape", [GATED, PLAIN], ids=lambda s: s.title)
def test_block_is_ours_and_a_loop(shape):
  ours, theirs = make_weights(shape)
  x = np.random.default_rng(1).normal(size=(7, shape.model_dim))
  expected = kernel_reference.block(shape, x=x, **ours)
  tokens = torch.from_numpy(x.astype(np.float32))
  for weights in (theirs, torch_block.as_in_out(theirs)):
    for add in torch_block.SUMS:
      found = torch_block.block(weights, tokens, shape=shape, add=add)
      # float32 sums of a few dozen terms.
      np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
  single = {
    name: None if array is None else jnp.asarray(array, jnp.float32)
    for name, array in ours.items()
    if name != "shared"
  }
  router, shared = single.pop("router"), None
  if ours["shared"] is not None:
    names = ("w_gate", "w_in", "w_out")
    arrays = (jnp.asarray(a, jnp.float32) for a in ours["shared"])
    shared = moe.FeedForward(
      **dict(zip(names, arrays, strict=True)), activation=shape.activation
    )
  experts = moe.Experts(**single, shared=shared, activation=shape.activation)
  found = kernel_rows.routed(
    experts, router, jnp.asarray(x, jnp.float32), shape=shape
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
  ("model_type", "shape"),
  [
    ("mixtral", dataclasses.replace(GATED, shared_dim=0)),
    ("olmoe", dataclasses.replace(GATED, shared_dim=0, renormalise=False)),
    ("qwen3_moe", dataclasses.replace(GATED, shared_dim=0)),
    ("deepseek_v2", dataclasses.replace(GATED, renormalise=False)),
    ("switch_transformers", PLAIN),
  ],
)
def test_transformers_blocks_are_the_same_block(model_type, shape):
  pytest.importorskip("transformers")
  shape = dataclasses.replace(shape, model_type=model_type)
  ours, theirs = make_weights(shape)
  x = np.random.default_rng(1).normal(size=(7, shape.model_dim))
  expected = kernel_reference.block(shape, x=x, **ours)
  tokens = torch.from_numpy(x.astype(np.float32))[None]
  # Switch's router is asked for bfloat16, 8 bits.
  atol = 2e-2 if model_type == "switch_transformers" else 1e-5
  for name in transformers_block.implementations(shape):
    block = transformers_block.make_block(shape, theirs, implementation=name)
    with torch.no_grad():
      found = block(tokens)[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=atol)


def test_a_queue_calls_on_every_input_and_keeps_errors(monkeypatch):
  # A graph would capture nothing of these calls.
  monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
  called = []
  queue = torch_queue.TorchQueue(called.append, [(1,), (2,), (3,)])
  assert queue.calls == 3
  called.clear()
  queue.run(2)
  assert called == [1, 2, 3] * 2

  def broken(x):
    raise RuntimeError("no kernel")

  assert str(torch_queue.attempt(broken, [(1,)])) == "no kernel"
  slow = torch_queue.TorchQueue(
    called.append, [(i,) for i in range(20)], can_capture=False
  )
  assert (slow.calls, slow.timing) == (8, "queued")


def test_weights_too_large_to_gather_are_not_tried(monkeypatch):
  monkeypatch.setattr(transformers_block, "MOST_GATHERED", 1e3)
  monkeypatch.setattr(
    transformers_block, "implementations", lambda shape: ["batched_mm"]
  )
  shape = dataclasses.replace(GATED, model_type="mixtral")
  tokens = [torch.zeros(5, shape.model_dim)]
  found = transformers_block.queues(shape, [], tokens)
  # 5 tokens, 2 experts of 3 * 16 * 32 bfloat16: 31 kB.
  assert "would gather" in str(found["transformers/batched_mm"])
  other = dataclasses.replace(GATED, model_type="")
  assert transformers_block.queues(other, [], tokens) == {}
