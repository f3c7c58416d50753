"""Run by `test_elsewhere` in another process: reads states, plays on devices.

Reads FOLDER/states.npz, states.pickle and the checkpoint states, writes the
leaves of each as FOLDER/read_*.npz, and FOLDER/played.npz, the merge weights of
eight seeds on eight devices with the checks of varying axes on and off.
"""

import os
import pickle
import sys
from pathlib import Path

if __name__ == "__main__":
  flags = os.environ.get("XLA_FLAGS", "").split()
  flags.append("--xla_force_host_platform_device_count=8")
  os.environ["XLA_FLAGS"] = " ".join(flags)

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import toy

from tanbr_jax.bandits import REGISTRY, Context, Feedback, delayed

E, V, ROUNDS = 3, 2, 3
SEEDS = np.arange(8, dtype=np.int32)
# A walk down a tree with an ascent, arms whose feedback comes late; each with
# whether varying axes are checked.
PLAYED = {"tanbr": True, "delayed": False}


def make(name):
  if name == "delayed":
    return delayed(make("thompson"), delay=2, num_tasks=V)
  return REGISTRY[name](num_experts=E, num_tasks=V)


def abstract_states():
  """The shapes of the state of every bandit, and of one that holds a key."""
  states = {
    name: jax.eval_shape(make(name).init, jax.random.key(0))
    for name in (*REGISTRY, "delayed")
  }
  states["toy"] = jax.eval_shape(toy.bandit().init, jax.random.key(0))
  return states


def as_bits(states):
  """The leaves as bytes, by path."""
  leaves = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(states):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    leaves[jax.tree_util.keystr(path)] = np.frombuffer(
      np.asarray(leaf).tobytes(), np.uint8
    )
  return leaves


def play(bandit, seed):
  """Merge weights [T, E] of a seed's rounds, all of whose rewards are drawn."""
  init_key, round_key = jax.random.split(jax.random.key(seed))

  def step(state, key):
    select_key, update_key, reward_key, mix_key = jax.random.split(key, 4)
    mix = jax.nn.softmax(jax.random.normal(mix_key, (V,)))
    decision = bandit.select(select_key, state, Context(mix))
    signals = {}
    if "gradient" in bandit.needs:
      signals["gradient"] = jax.random.normal(reward_key, (E,))
      signals["gradient_count"] = jnp.int32(1)
    if "usage" in bandit.needs:
      draws = jax.random.normal(reward_key, (E,))
      signals["usage"] = jax.nn.softmax(draws)
    reward = jax.random.normal(reward_key, (V,))
    feedback = Feedback(reward, jnp.ones(V, jnp.int32), **signals)
    state = bandit.update(update_key, state, Context(mix), decision, feedback)
    return state, decision.merge_weights

  keys = jax.random.split(round_key, ROUNDS)
  return jax.lax.scan(step, bandit.init(init_key), keys)[1]


def on_devices(bandit, mesh, check):
  """`play` for seeds that are spread over the mesh."""
  spec = jax.sharding.PartitionSpec("seeds")
  return jax.shard_map(
    jax.vmap(lambda seed: play(bandit, seed)),
    mesh=mesh,
    in_specs=spec,
    out_specs=spec,
    check_vma=check,
  )


def main(folder):
  like = abstract_states()
  structure = jax.tree.structure(like)
  with np.load(folder / "states.npz") as file:
    leaves = [file[f"{i}"] for i in range(structure.num_leaves)]
  np.savez(folder / "read_numpy", *leaves)
  states = pickle.loads((folder / "states.pickle").read_bytes())
  assert jax.tree.structure(states) == structure
  np.savez(folder / "read_pickle", **as_bits(states))
  with ocp.StandardCheckpointer() as checkpointer:
    states = checkpointer.restore(folder / "states", like)
  assert jax.tree.structure(states) == structure
  np.savez(folder / "read_orbax", **as_bits(states))
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("seeds",))
  played = {
    name: jax.jit(on_devices(make(name), mesh, check))(SEEDS)
    for name, check in PLAYED.items()
  }
  np.savez(folder / "played", **played)


if __name__ == "__main__":
  main(Path(sys.argv[1]))
