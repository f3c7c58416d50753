"""Run by `test_processes`: one of two processes with two CPU devices each.

  python play_in_processes.py PORT PROCESS FOLDER [CHUNK]

With a CHUNK it plays a run until that chunk is saved, says so and waits to be
killed. Otherwise it goes on with that run, writes FOLDER/<process>.npz, its
trace, and FOLDER/<process>.json, what else was refused or returned.
"""

import json
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
  flags = os.environ.get("XLA_FLAGS", "").split()
  flags.append("--xla_force_host_platform_device_count=2")
  os.environ["XLA_FLAGS"] = " ".join(flags)

import jax
import numpy as np
import toy

from tanbr_jax.online import processes, rollout, trace
from tanbr_jax.online.chunk_store import ChunkStore
from tanbr_jax.report import workdir

RUN = {"num_rounds": 23, "seeds": (3, 7, 1, 8, 9), "chunk_size": 6}


def play(folder=None, **changes):
  mesh = jax.sharding.Mesh(np.array(jax.devices()), "seeds")
  return rollout.run(
    toy.bandit(),
    toy.environment(),
    **(RUN | changes),
    mesh=mesh,
    workdir=folder,
    progress=False,
  )


def refusal(function, *args, **changes):
  try:
    function(*args, **changes)
  except (ValueError, OSError) as error:
    return str(error)
  return None


def stop_after(chunk):
  """Lets a run save a chunk and do nothing else."""
  save = ChunkStore.save

  def save_and_wait(self, index, *args):
    save(self, index, *args)
    if index == chunk:
      print("saved", flush=True)
      signal.pause()

  ChunkStore.save = save_and_wait


def main(process, folder):
  found = {}
  # Every process goes on from its own last chunk.
  played = play(folder / "run")
  trace.save(folder / f"{process}.npz", {"run": played})
  # Different runs, and different configs.
  found["rounds"] = refusal(play, num_rounds=20 + process)
  found["config"] = refusal(
    workdir.open_workdir,
    folder / "other",
    {"noise": 0.1 * process},
    seeds=[0],
  )
  found["made"] = (folder / "other").exists()
  # Fewer seeds than processes.
  found["few"] = refusal(play, seeds=(5,))
  # Bytes of other types than JAX has by default.
  arrays = {"x": np.arange(2.0 + process) / 3, "y": np.full((1, 2), process)}
  found["gathered"] = [
    {name: array.tolist() for name, array in theirs.items()}
    for theirs in processes.gather(arrays)
  ]
  # What one cannot do, none does.
  found["failed"] = refusal(processes.together, lambda: fail(process))
  (folder / f"{process}.json").write_text(json.dumps(found))


def fail(process):
  if process == 1:
    raise OSError(28, "No space left on device", "chunk.npz")


if __name__ == "__main__":
  port, process, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
  jax.distributed.initialize(f"localhost:{port}", 2, process)
  if len(sys.argv) > 4:
    stop_after(int(sys.argv[4]))
    play(path / "run")
  main(process, path)
