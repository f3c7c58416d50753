"""Regret of bandits on synthetic environments, see `comparison`."""

from experiments.common import launch
from experiments.regret import comparison

if __name__ == "__main__":
  launch.start(
    comparison.run,
    config="configs/regret/quick.py",
    workdir="runs/regret_quick",
    has_bars=True,
    spreads=True,
  )
