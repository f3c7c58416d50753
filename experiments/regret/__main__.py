"""Starts `experiments.regret.comparison`, see there."""

from experiments.common import launch
from experiments.regret import comparison

if __name__ == "__main__":
  launch.run(comparison.main, command_line=comparison.COMMAND_LINE)
