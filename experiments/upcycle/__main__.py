"""Upcycles a dense checkpoint, see `command`.

python -m experiments.upcycle --config=configs/upcycle/smollm2.py
"""

from experiments.common import launch
from experiments.upcycle import command

if __name__ == "__main__":
  launch.start(
    command.run,
    config="configs/upcycle/smollm2.py",
    workdir="runs/upcycle_smollm2",
    has_bars=True,
  )
