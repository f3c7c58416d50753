"""Run by `test_devices` in another process, which has four CPU devices.

Writes FOLDER/traces.npz, the trace of each run below by its name.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
  flags = os.environ.get("XLA_FLAGS", "").split()
  flags.append("--xla_force_host_platform_device_count=4")
  os.environ["XLA_FLAGS"] = " ".join(flags)

import jax
import numpy as np
import toy
from interruption import interrupted

from tanbr_jax import bandits
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.online import rollout, trace

# Five seeds are divided by one device alone.
RUN = {
  "num_rounds": 23,
  "seeds": (3, 7, 1, 8, 9),
  "chunk_size": 6,
  "progress": False,
}
BANDITS = ("lin_ucb", "tanbr", "thompson")
SIZES = {"num_experts": 3, "num_tasks": 3}


def mesh(count, axis="x"):
  return jax.sharding.Mesh(np.array(jax.devices()[:count]), axis)


def play(**options):
  return rollout.run(toy.bandit(), toy.environment(), **RUN, **options)


def main(folder):
  played = {}
  for loop in rollout.LOOPS:
    played[f"{loop} without"] = play(loop=loop)
    for count in (1, 3, 4):
      played[f"{loop} {count}"] = play(loop=loop, mesh=mesh(count))
  square = np.array(jax.devices()).reshape(2, 2)
  played["vmap square"] = play(mesh=jax.sharding.Mesh(square, ("a", "b")))
  # Stopped after two chunks on two devices, gone on with on three.
  with interrupted(after=1):
    try:
      play(mesh=mesh(2), workdir=folder / "run")
    except KeyboardInterrupt:
      pass
  played["vmap resumed"] = play(mesh=mesh(3), workdir=folder / "run")
  played["vmap read"] = play(workdir=folder / "run")
  # A model, an ascent and a tree; draws of many kinds.
  environment = synthetic.synthetic(
    "quadratic", task_mix=mixes.drift(num_tasks=3), **SIZES
  )
  for name in BANDITS:
    for count in (1, 4):
      played[f"{name} {count}"] = rollout.run(
        bandits.REGISTRY[name](**SIZES),
        environment,
        **RUN,
        loop="map",
        mesh=mesh(count),
      )
  trace.save(folder / "traces.npz", played)


if __name__ == "__main__":
  main(Path(sys.argv[1]))
