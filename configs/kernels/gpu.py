"""Device time of merging and of MoE blocks, each beside its floor and peers.

  python -m experiments.benchmark_kernels --workdir=runs/kernels
  python -m experiments.kernel_table --run=runs/kernels --write

Results are written after every shape and number of tokens, and a later run
with the same workdir adds to them: name a few shapes if time is short, as in
`--config.shapes=mixtral,olmoe --config.tokens=16,4096`. PyTorch's and
transformers' rows need PyTorch with CUDA and transformers.

Needs a GPU with 80 GB for Mixtral's shape. Without one, a minute on a CPU:

  python -m experiments.benchmark_kernels --workdir=/tmp/tiny \
    --config.shapes=tiny,tiny_plain --config.tokens=1,16 --config.repeats=3 \
    --config.ceiling_bytes=1000000 --config.matmul_size=256
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """All shapes, at one token to 16,384."""
  config = ml_collections.ConfigDict()
  # Comma list of `experiments.kernels.shapes.SHAPES`.
  config.shapes = "mixtral,olmoe,qwen3,deepseek,switch8,switch64,switch128,t5"
  # Comma list of numbers of tokens.
  config.tokens = "1,16,128,1024,4096,16384"
  # Comma list of groups of rows: "merging" has no tokens; "forced" names each
  # implementation, "shipped" is the kernel inside JAX, "parts" are the steps of
  # the routed block.
  config.rows = (
    "merging,routed,merged,masked,parts,forced,shipped,torch,transformers"
  )
  # Times that each row is queued and waited for, the rows in turns.
  config.repeats = 10
  # Milliseconds that one of these takes at least.
  config.min_ms = 20.0
  # No further shape or number of tokens is begun after so many seconds.
  config.max_seconds = 540.0
  # The slow reference is not timed with more tokens.
  config.xla_max_tokens = 1024
  # Programs compiled at a time.
  config.threads = 16
  # Sizes of what measures the device's ceilings: bytes that are copied and
  # read, and a side of the matrices that are multiplied.
  config.ceiling_bytes = 1_000_000_000
  config.matmul_size = 8192
  return config
