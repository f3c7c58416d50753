"""A pre-training of a second or two, shared by the tests that need one."""

import numpy as np

from tanbr_jax import data
from tanbr_jax.training import pretraining

CONFIG = pretraining.PretrainConfig(
  num_layers=1,
  model_dim=16,
  num_heads=1,
  head_dim=8,
  expert_dim=16,
  num_experts=3,
  num_selected=2,
  context=8,
  num_steps=12,
  dense_steps=6,
  batch_size=8,
  mixes_per_step=2,
  learning_rate=1e-2,
  warmup_steps=2,
  routed_every=3,
)


def corpus() -> data.Corpus:
  """Three tasks, each a cycle of its own over the same four bytes."""
  cycles = [b"abcd", b"dcba", b"acbd"]
  splits = {
    name: tuple(np.frombuffer(cycle * 50, np.uint8)[shift:] for cycle in cycles)
    for shift, name in enumerate(("train", "validation", "test"))
  }
  return data.Corpus(("up", "down", "mixed"), splits, "fingerprint")


def windows(split: str, count: int = 4):
  """[3, count, 9] windows."""
  text = data.from_arrays(corpus().splits[split])
  return data.evaluation_windows(text, count, CONFIG.context + 1)
