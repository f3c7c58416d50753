"""The constructor, the source and the needs of every registered bandit.

`experiments.algorithm_table` makes the table in experiments/regret/README.md of
this and of measured regret.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from tanbr_jax.bandits.arms.cats import cats
from tanbr_jax.bandits.arms.classic_arms import epsilon_greedy, thompson, ucb1
from tanbr_jax.bandits.arms.exp3 import exp3
from tanbr_jax.bandits.arms.zooming import zooming
from tanbr_jax.bandits.base import Bandit
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
from tanbr_jax.bandits.trees.hct import hct
from tanbr_jax.bandits.trees.hoo import hoo
from tanbr_jax.bandits.trees.sto_soo import sto_soo
from tanbr_jax.bandits.trees.tanbr import tanbr, tanbr_paper

# What an algorithm may need besides a reward a slot.
NEEDS: Mapping[str, str] = MappingProxyType(
  {
    "mix": "decides by the slot's task mix",
    "task rewards": "learns from the reward of every task, not of the slot",
    "gradient": "learns from the derivative of the slot's reward, told",
    "usage": "learns from the router's use of the experts, told",
    "own gradients": "differentiates a model of its own, to train or ascend it",
    "horizon": "is told beforehand how many rounds there will be",
    "smoothness": "is told how fast rewards may change with the weights",
    "table": "is given weights for every task",
    "optimum": "is given the best weights",
  }
)

# What an algorithm is told of the stream, the least first. A comparison across
# them is about information as much as about algorithms.
TOLD = (
  "nothing",
  "rewards",
  "the router's usage",
  "gradients",
  "weights of every task",
  "the optimum",
)


class Entry(NamedTuple):
  """The source and the needs of one bandit.

  Attributes:
    source: authors of the paper, or what else it is.
    year: of the paper; None where there is none.
    needs: of `NEEDS`, with the constructor's defaults.
  """

  source: str
  year: int | None
  needs: tuple[str, ...] = ()

  @property
  def told(self) -> str:
    """Which of `TOLD`."""
    sources = {
      "optimum": "the optimum",
      "table": "weights of every task",
      "gradient": "gradients",
      "usage": "the router's usage",
    }
    for need, told in sources.items():
      if need in self.needs:
        return told
    return "nothing" if self.source.startswith("control") else "rewards"


_MODEL = ("mix", "task rewards", "own gradients")
_TREE = ("mix", "smoothness")

CATALOGUE: Mapping[str, Entry] = MappingProxyType(
  {
    "cats": Entry("Majzoubi et al.", 2020, ("mix", "own gradients")),
    "epsilon_greedy": Entry(
      "Auer, Cesa-Bianchi, Fischer", 2002, ("mix", "task rewards")
    ),
    "exp3": Entry("Auer et al.", 2002),
    "exponentiated_gradient": Entry("Kivinen, Warmuth", 1997, ("gradient",)),
    "fixed": Entry("control: one static merge", None),
    "follow_task_mix": Entry("control: x = psi R", None, ("mix", "table")),
    "follow_usage": Entry("ours", None, ("usage",)),
    "gp_ucb": Entry("Srinivas et al.", 2010, ("mix", "own gradients")),
    "hct": Entry("Azar, Lazaric, Brunskill", 2014, _TREE),
    "hoo": Entry("Bubeck et al., truncated", 2011, (*_TREE, "horizon")),
    "lin_ts": Entry("Agrawal, Goyal", 2013, _MODEL),
    "lin_ucb": Entry("Li et al.", 2010, _MODEL),
    "meta_gradient": Entry(
      "Zhang, Lu, Zhou, on logits with Adam's steps", 2018, ("mix", "gradient")
    ),
    "multitask_ts": Entry("ours", None, _MODEL),
    "neural_epsilon_greedy": Entry(
      "Auer, Cesa-Bianchi, Fischer, on a network", 2002, _MODEL
    ),
    "neural_linear": Entry("Riquelme, Tucker, Snoek", 2018, _MODEL),
    "neural_ts": Entry("Zhang et al.", 2021, _MODEL),
    "neural_ucb": Entry("Zhou, Li, Gu, our schedule", 2020, _MODEL),
    "neural_ucb_practical": Entry("Zhou, Li, Gu, public code", 2020, _MODEL),
    "neural_ucb_theory": Entry("Zhou, Li, Gu, as proved", 2020, _MODEL),
    "online_gradient": Entry(
      "Zinkevich, on logits with Adam's steps", 2003, ("gradient",)
    ),
    "online_newton": Entry("Hazan, Agarwal, Kale", 2007, ("gradient",)),
    "oracle": Entry("control: the best", None, ("mix", "optimum")),
    "random": Entry("control: uniform on the simplex", None),
    "sto_soo": Entry("Valko, Carpentier, Munos", 2013, ("mix", "horizon")),
    "tanbr": Entry("Han et al., with our reward model", 2025, _MODEL),
    "tanbr_paper": Entry("Han et al., reconstructed", 2025, _MODEL),
    "thompson": Entry("Thompson", 1933, ("mix", "task rewards")),
    "ucb1": Entry("Auer, Cesa-Bianchi, Fischer", 2002, ("mix", "task rewards")),
    "uniform": Entry("control: the plain average", None),
    "zooming": Entry("Kleinberg, Slivkins, Upfal", 2008, (*_TREE, "horizon")),
  }
)

REGISTRY: Mapping[str, Callable[..., Bandit]] = MappingProxyType(
  {
    "cats": cats,
    "epsilon_greedy": epsilon_greedy,
    "exp3": exp3,
    "exponentiated_gradient": exponentiated_gradient,
    "fixed": fixed,
    "follow_task_mix": follow_task_mix,
    "follow_usage": follow_usage,
    "gp_ucb": gp_ucb,
    "hct": hct,
    "hoo": hoo,
    "lin_ts": lin_ts,
    "lin_ucb": lin_ucb,
    "meta_gradient": meta_gradient,
    "multitask_ts": multitask_ts,
    "neural_epsilon_greedy": neural_epsilon_greedy,
    "neural_linear": neural_linear,
    "neural_ts": neural_ts,
    "neural_ucb": neural_ucb,
    "neural_ucb_practical": neural_ucb_practical,
    "neural_ucb_theory": neural_ucb_theory,
    "online_gradient": online_gradient,
    "online_newton": online_newton,
    "oracle": oracle,
    "random": random,
    "sto_soo": sto_soo,
    "tanbr": tanbr,
    "tanbr_paper": tanbr_paper,
    "thompson": thompson,
    "ucb1": ucb1,
    "uniform": uniform,
    "zooming": zooming,
  }
)
