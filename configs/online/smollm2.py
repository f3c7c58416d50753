"""A real model serves a drifting stream: SmolLM2 upcycled, on one GPU.

  python -m experiments.upcycle --config=configs/upcycle/smollm2.py \
    --config.recipes=domains --config.num_seeds=1 --workdir=runs/upcycle_smollm2
  python -m experiments.online_merging --config=configs/online/smollm2.py \
    --workdir=runs/online_smollm2

The first command is for who has not run that of configs/upcycle/smollm2.py,
whose folder holds the same checkpoint.

The reward is the log-likelihood of the next token on the test text of the
built-in domains; `--config.reward=accuracy` and another workdir for accuracy.

Run time, on one H200 that other processes use, compilation included: the
weights of every mix one and a half minutes, then the oracle and `best_static`
17 s each, `meta_gradient` 70, `tanbr` 109, `routed` 62, `uniform` 10.
Expected: the table of methods in experiments/upcycle/README.md.
`follow_usage`, `multitask_ts`, `lin_ucb` and `follow_task_mix` were not played
on this checkpoint.
"""

import ml_collections

from configs.online import gpu


def get_config() -> ml_collections.ConfigDict:
  """The GPU's config with a checkpoint, and all methods by what they are told.

  Nothing is trained: the section `pretrain` is not used.
  """
  config = gpu.get_config()
  config.model.update(
    path="runs/upcycle_smollm2/domains_0",
    dtype="bfloat16",
    context=64,
    scanned=True,
  )
  config.oracle.update(windows=8, search_windows=8, error_mixes=2)
  config.requests = 8
  config.num_seeds = 8
  config.reward = "log_likelihood"
  # Learners from gradients, from scalar rewards, from the router's usage; then
  # those that are told everything or nothing.
  config.bandits = (
    "best_static,meta_gradient,tanbr,routed,uniform,follow_usage,multitask_ts,"
    "lin_ucb,follow_task_mix"
  )
  config.latency_repeats = 20
  return config
