"""Regret of bandits on synthetic environments, see `comparison`."""

from experiments.common import launch
from experiments.regret import comparison

if __name__ == "__main__":
  launch.start(comparison.main, command_line=comparison.COMMAND_LINE)
