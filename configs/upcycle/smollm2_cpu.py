"""Three experts of SmolLM2-135M, its last two layers trained, on a CPU.

  python -m experiments.upcycle --config=configs/upcycle/smollm2_cpu.py \
    --workdir=runs/upcycle_smollm2_cpu

Run time: 150 s of processor time, compilation and text included: between 1.3
and 2.5 minutes on two idle CPU cores. What it serves like is seen with
configs/online/smollm2_cpu.py.
"""

import ml_collections

from configs.upcycle import smollm2


def get_config() -> ml_collections.ConfigDict:
  """The GPU's config with three domains, short text and two layers."""
  config = smollm2.get_config()
  config.data.tasks = "python,prose,numbers"
  config.recipes = "domains"
  config.num_seeds = 1
  config.upcycle.update(
    num_experts=3,
    num_selected=1,
    last_layers=2,
    dtype="float32",
    context=64,
    batch_size=4,
    mixes_per_step=1,
    num_steps=60,
    shared_steps=0,
    router_steps=0,
    task_loss=0.0,
    warmup_steps=3,
    learning_rate=1e-3,
  )
  # Scored by the job that serves it.
  config.evaluates = False
  return config
