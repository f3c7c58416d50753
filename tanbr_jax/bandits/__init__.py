"""Bandits over merge weights, and the registry of their constructors.

Every constructor takes `num_experts` and `num_tasks` and returns a `Bandit`;
what else it takes has a default.
"""

from tanbr_jax.bandits.arms.cats import cats
from tanbr_jax.bandits.arms.classic_arms import epsilon_greedy, thompson, ucb1
from tanbr_jax.bandits.arms.exp3 import exp3
from tanbr_jax.bandits.arms.zooming import zooming
from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  Needs,
  check_sizes,
)
from tanbr_jax.bandits.controls import (
  fixed,
  follow_task_mix,
  oracle,
  random,
  uniform,
)
from tanbr_jax.bandits.first_order.exponentiated_gradient import (
  exponentiated_gradient,
)
from tanbr_jax.bandits.first_order.follow_usage import follow_usage
from tanbr_jax.bandits.first_order.meta_gradient import meta_gradient
from tanbr_jax.bandits.first_order.online_gradient import online_gradient
from tanbr_jax.bandits.first_order.online_newton import online_newton
from tanbr_jax.bandits.linear.gp_ucb import gp_ucb
from tanbr_jax.bandits.linear.lin_ucb import lin_ts, lin_ucb
from tanbr_jax.bandits.linear.multitask_ts import multitask_ts
from tanbr_jax.bandits.neural.neural_epsilon_greedy import neural_epsilon_greedy
from tanbr_jax.bandits.neural.neural_linear import neural_linear
from tanbr_jax.bandits.neural.neural_ts import neural_ts
from tanbr_jax.bandits.neural.neural_ucb import (
  neural_ucb,
  neural_ucb_practical,
  neural_ucb_theory,
)
from tanbr_jax.bandits.registry import REGISTRY
from tanbr_jax.bandits.trees.hct import hct
from tanbr_jax.bandits.trees.hoo import hoo
from tanbr_jax.bandits.trees.sto_soo import sto_soo
from tanbr_jax.bandits.trees.tanbr import tanbr, tanbr_paper
from tanbr_jax.bandits.wrappers.delayed import delayed
from tanbr_jax.bandits.wrappers.discounted import discounted, forget
from tanbr_jax.bandits.wrappers.sliding_window import sliding_window
from tanbr_jax.bandits.wrappers.standardised import standardised

__all__ = [
  "REGISTRY",
  "Bandit",
  "Context",
  "Decision",
  "Feedback",
  "Needs",
  "cats",
  "check_sizes",
  "delayed",
  "discounted",
  "epsilon_greedy",
  "exp3",
  "exponentiated_gradient",
  "fixed",
  "follow_task_mix",
  "follow_usage",
  "forget",
  "gp_ucb",
  "hct",
  "hoo",
  "lin_ts",
  "lin_ucb",
  "meta_gradient",
  "multitask_ts",
  "neural_epsilon_greedy",
  "neural_linear",
  "neural_ts",
  "neural_ucb",
  "neural_ucb_practical",
  "neural_ucb_theory",
  "online_gradient",
  "online_newton",
  "oracle",
  "random",
  "sliding_window",
  "standardised",
  "sto_soo",
  "tanbr",
  "tanbr_paper",
  "thompson",
  "ucb1",
  "uniform",
  "zooming",
]
