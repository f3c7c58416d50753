"""Latency and memory of a tiny decoder, on a CPU.

  python -m experiments.latency --config=configs/model_latency/quick.py

Run time: half a minute. The figures say nothing about real models: it shows
what the run on a GPU writes.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """The config; see the fields' comments."""
  config = ml_collections.ConfigDict()
  # Comma list of `models.PRESETS`; each runs in a process of its own.
  config.models = "tiny"
  # Model -> fields of `models.DecoderConfig` that differ from the preset's.
  config.changes = ml_collections.ConfigDict()
  # Of parameters and computation: "bfloat16" or "float32".
  config.dtype = "float32"
  # Of the experts' kernels; empty for the best on the device.
  config.implementation = ""
  # The prompts that are read: sequences, and tokens of each.
  config.batch_size = 4
  config.length = 8
  # Sequences decoded at a time, and tokens of each in one timed program.
  config.decode_batch_sizes = (1, 4)
  config.decode_steps = 4
  # How many token-expert pairs the masked form keeps.
  config.active_share = 0.15
  # Turns, as many of them as fit into the seconds but at least three, and the
  # least time of each function in one turn.
  config.repeats = 5
  config.max_seconds = 5.0
  config.min_ms = 0.0
  # Sizes of what finds the ceilings, see `experiments.kernels.ceilings`.
  config.ceiling_bytes = 1_000_000
  config.matmul_size = 256
  return config
