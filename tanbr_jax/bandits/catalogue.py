"""The source and the needs of every registered bandit.

`experiments.algorithm_table` makes the table in experiments/regret/README.md of
this and of measured regret.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

# What an algorithm may need besides a reward a slot.
NEEDS: Mapping[str, str] = MappingProxyType(
  {
    "mix": "decides by the slot's task mix",
    "task rewards": "learns from the reward of every task, not of the slot",
    "gradients": "differentiates a model of its own, to train or to ascend it",
    "horizon": "is told beforehand how many rounds there will be",
    "smoothness": "is told how fast rewards may change with the weights",
    "table": "is given weights for every task",
    "optimum": "is given the best weights",
  }
)


class Entry(NamedTuple):
  """One line of the catalogue.

  Attributes:
    source: authors of the paper, or what else it is.
    year: of the paper; None where there is none.
    needs: of `NEEDS`, with the constructor's defaults.
  """

  source: str
  year: int | None
  needs: tuple[str, ...] = ()


_MODEL = ("mix", "task rewards", "gradients")
_TREE = ("mix", "smoothness")

CATALOGUE: Mapping[str, Entry] = MappingProxyType(
  {
    "cats": Entry("Majzoubi et al.", 2020, ("mix", "gradients")),
    "epsilon_greedy": Entry(
      "Auer, Cesa-Bianchi, Fischer", 2002, ("mix", "task rewards")
    ),
    "exp3": Entry("Auer et al.", 2002),
    "fixed": Entry("control: one static merge", None),
    "follow_task_mix": Entry("control: x = psi R", None, ("mix", "table")),
    "gp_ucb": Entry("Srinivas et al.", 2010, ("mix", "gradients")),
    "hct": Entry("Azar, Lazaric, Brunskill", 2014, _TREE),
    "hoo": Entry("Bubeck et al., truncated", 2011, (*_TREE, "horizon")),
    "lin_ts": Entry("Agrawal, Goyal", 2013, _MODEL),
    "lin_ucb": Entry("Li et al.", 2010, _MODEL),
    "multitask_ts": Entry("ours", None, _MODEL),
    "neural_epsilon_greedy": Entry(
      "Auer, Cesa-Bianchi, Fischer, on a network", 2002, _MODEL
    ),
    "neural_linear": Entry("Riquelme, Tucker, Snoek", 2018, _MODEL),
    "neural_ts": Entry("Zhang et al.", 2021, _MODEL),
    "neural_ucb": Entry("Zhou, Li, Gu, our schedule", 2020, _MODEL),
    "neural_ucb_practical": Entry("Zhou, Li, Gu, public code", 2020, _MODEL),
    "neural_ucb_theory": Entry("Zhou, Li, Gu, as proved", 2020, _MODEL),
    "oracle": Entry("control: the best", None, ("mix", "optimum")),
    "random": Entry("control: uniform on the simplex", None),
    "sto_soo": Entry("Valko, Carpentier, Munos", 2013, ("mix", "horizon")),
    "tanbr": Entry("Han et al., practical preset", 2025, _MODEL),
    "tanbr_paper": Entry("Han et al., reconstructed", 2025, _MODEL),
    "thompson": Entry("Thompson", 1933, ("mix", "task rewards")),
    "ucb1": Entry("Auer, Cesa-Bianchi, Fischer", 2002, ("mix", "task rewards")),
    "uniform": Entry("control: the plain average", None),
    "zooming": Entry("Kleinberg, Slivkins, Upfal", 2008, (*_TREE, "horizon")),
  }
)
