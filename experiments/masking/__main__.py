"""Compares the ways to use fewer experts per token, see `study`.

python -m experiments.masking --config=configs/masking/quick.py
"""

from experiments.common import launch
from experiments.masking import study

if __name__ == "__main__":
  launch.start(
    study.run,
    config="configs/masking/quick.py",
    workdir="runs/masking_quick",
    has_bars=True,
  )
