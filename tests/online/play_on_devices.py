"""Run by `test_devices` in another process, which has four CPU devices.

  python play_on_devices.py FOLDER [BANDIT...]

Writes FOLDER/traces.npz, the trace of each run below by its name, and
FOLDER/points.npy, what five bandits end with on one device and on all. With
bandits of the registry these play, one seed after the other, on one device and
on four.
"""

import contextlib
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
SIZES = {"num_experts": 3, "num_tasks": 3}


def mesh(count, axis="x"):
  return jax.sharding.Mesh(np.array(jax.devices()[:count]), axis)


def play(**options):
  return rollout.run(toy.bandit(), toy.environment(), **RUN, **options)


def play_toys(folder):
  played = {}
  for loop, counts in (("vmap", (3, 4)), ("map", (4,))):
    played[f"{loop} without"] = play(loop=loop)
    for count in counts:
      played[f"{loop} {count}"] = play(loop=loop, mesh=mesh(count))
  square = np.array(jax.devices()).reshape(2, 2)
  played["vmap square"] = play(mesh=jax.sharding.Mesh(square, ("a", "b")))
  # Stopped after two chunks on two devices, gone on with on three.
  with interrupted(after=1), contextlib.suppress(KeyboardInterrupt):
    play(mesh=mesh(2), workdir=folder / "run")
  played["vmap resumed"] = play(mesh=mesh(3), workdir=folder / "run")
  played["vmap read"] = play(workdir=folder / "run")
  return played


def play_points():
  """Regrets [2, G, S] of five bandits together, on one device and on four."""
  arms = [toy.bandit(0.1 * number) for number in range(1, 6)]
  options = {"num_rounds": 9, "seeds": (3, 4), "progress": False}
  return [
    [
      (one.optimal_reward - one.expected_reward).sum(axis=1)
      for one in rollout.run_together(
        arms, toy.environment(), mesh=on, **options
      )
    ]
    for on in (None, mesh(4))
  ]


def play_bandits(names):
  environment = synthetic.synthetic(
    "quadratic", task_mix=mixes.drift(num_tasks=3), **SIZES
  )
  return {
    f"{name} {count}": rollout.run(
      bandits.REGISTRY[name](**SIZES),
      environment,
      **RUN,
      loop="map",
      mesh=mesh(count),
    )
    for name in names
    for count in (1, 4)
  }


if __name__ == "__main__":
  folder, *names = sys.argv[1:]
  played = play_bandits(names) if names else play_toys(Path(folder))
  if not names:
    np.save(Path(folder) / "points.npy", play_points())
  trace.save(Path(folder) / "traces.npz", played)
