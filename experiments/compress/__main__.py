"""Every way to compress a model's experts offline, see `study`."""

from experiments.common import launch
from experiments.compress import study

if __name__ == "__main__":
  launch.start(
    study.run,
    config="configs/compress/quick.py",
    workdir="runs/compress_quick",
    has_bars=True,
  )
