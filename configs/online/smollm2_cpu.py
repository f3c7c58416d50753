"""SmolLM2 with experts in its last two layers serves a stream, on a CPU.

  python -m experiments.upcycle --config=configs/upcycle/smollm2_cpu.py \
    --workdir=runs/upcycle_smollm2_cpu
  python -m experiments.online_merging --config=configs/online/smollm2_cpu.py \
    --workdir=runs/online_smollm2_cpu

Run time: 377 s of processor time, compilation and text included: between 3.1
and 6.3 minutes on two idle CPU cores.
Expected: the last table of experiments/upcycle/README.md; `meta_gradient` lies
below `uniform` in loss.
"""

import ml_collections

from configs.online import smollm2


def get_config() -> ml_collections.ConfigDict:
  """The GPU's config with three domains, a short stream and few methods."""
  config = smollm2.get_config()
  config.model.update(
    path="runs/upcycle_smollm2_cpu/domains_0",
    dtype="float32",
    tasks="python,prose,numbers",
  )
  config.oracle.update(
    steps=6,
    search_windows=4,
    windows=4,
    error_mixes=1,
    error_starts=1,
    error_steps=2,
  )
  config.num_rounds = 40
  config.chunk_size = 20
  config.requests = 2
  config.num_seeds = 1
  config.loop = "map"
  config.bandits = "meta_gradient,tanbr,uniform,best_static"
  config.latency_repeats = 3
  return config
