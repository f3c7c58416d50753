"""Speed of every bandit beside PyXAB and a PyTorch NeuralUCB.

  python -m experiments.benchmark_bandits --workdir=runs/benchmark

Needs PyXAB and PyTorch for their rows, which otherwise say what to install.
On one GPU, the wall time of 1,024 seeds and 5,000 rounds, compiled before:

  python -m experiments.benchmark_bandits --workdir=runs/benchmark_gpu \
    --config.bandits=tanbr --config.seed_counts=1024 \
    --config.num_rounds=5000 --config.max_seconds=600

Run time: minutes for each bandit, on an otherwise idle machine; name a few with
`--config.bandits`.
"""

import ml_collections

from configs.regret import quick


def get_config() -> ml_collections.ConfigDict:
  """One seed and 32, T = 4,000, E = V = 8, on a quadratic under drift."""
  base = quick.get_config()
  config = ml_collections.ConfigDict()
  config.num_experts = 8
  config.num_tasks = 8
  config.family = "quadratic"
  config.mix = "drift"
  for field in ("noise", "noise_kind", "requests", "monitor_decay"):
    config[field] = base[field]
  config.mix_options = base.mix_options
  # Comma list of names of the registry or of `methods`. PyXAB's T_HOO is run
  # beside "hoo", its HCT beside "hct", PyTorch beside "neural_ucb".
  config.bandits = (
    "tanbr,tanbr_paper,multitask_ts,neural_ucb,neural_ts,neural_linear,"
    "neural_epsilon_greedy,lin_ucb,lin_ts,gp_ucb,hoo,hct,zooming,sto_soo,cats,"
    "ucb1,epsilon_greedy,thompson,exp3,random"
  )
  config.methods = ml_collections.ConfigDict()
  # Comma list of numbers of seeds.
  config.seed_counts = "1,32"
  # "vmap" advances the seeds together, "map" one after the other.
  config.loop = "vmap"
  config.num_rounds = 4000
  config.chunk_size = 250
  # A method that takes longer is stopped between two chunks, three chunks at
  # the earliest; its row says how many rounds it played.
  config.max_seconds = 45.0
  # The same for PyXAB, whose cost grows with t: stopping it early flatters it.
  config.pyxab_max_seconds = 240.0
  # Of PyXAB's algorithms and of ours beside them.
  config.pyxab = ml_collections.ConfigDict(
    {
      "hoo": {"nu": 0.2, "rho": 0.9},
      "hct": {"nu": 0.2, "rho": 0.9, "c": 0.05},
    }
  )
  # What makes ours as theirs: no context, and room for two nodes a round.
  config.one_tree = ml_collections.ConfigDict(
    {
      "hoo": {"context": "none", "capacity": 8191, "noise_scale": 1.0},
      "hct": {"context": "none", "capacity": 8191},
    }
  )
  # Beside PyTorch: rounds learnt without training, then rounds with all of it.
  config.torch = ml_collections.ConfigDict(
    {"history": 200, "num_rounds": 60, "chunk_size": 20, "max_steps": 1000}
  )
  # The regrets of NeuralUCB's two forms, paired.
  config.regret_rounds = 1500
  config.regret_seeds = 4
  return config
