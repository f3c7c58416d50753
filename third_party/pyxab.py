"""PyXAB's algorithms as baselines in our environments.

PyXAB (Wenjie Li and others, MIT licence, see NOTICE.md) has many X-armed
bandits over boxes, written in plain Python. Here one of them decides and our
environment answers, with the requests and the noise that our own bandits meet
under the same seed, so that regrets can be compared pairwise.

An algorithm of PyXAB sees one number a slot, psi . r over the tasks that were
seen, and no context. Its domain is the box [0, 1]^(E-1), which is laid onto
the simplex by breaking a stick [R]: with u uniform on the box,

  v_k = 1 - (1 - u_k)^(1 / (E - k)),  x_k = v_k prod_(j < k) (1 - v_j)

is Beta(1, E - k) in v, hence uniform in x: the map keeps volumes, is
continuous and reaches all of the simplex. Letters: V tasks, E experts, S seeds,
T rounds.
"""

import contextlib
import functools
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits import Bandit, Context, Decision, Feedback
from tanbr_jax.bandits.arms.slot_reward import slot_reward
from tanbr_jax.environments import Environment
from tanbr_jax.online import rounds
from tanbr_jax.online.trace import Trace

# Where an algorithm is not in a module of its own name.
_MODULES = {"T_HOO": "HOO"}


def algorithm(name: str) -> type:
  """Returns a class of PyXAB by its name, such as "T_HOO" or "HCT".

  Raises:
    ImportError: if PyXAB is not installed.
    ValueError: if PyXAB has no such algorithm.
  """
  try:
    importlib.import_module("PyXAB")
  except ImportError as error:
    raise ImportError(
      "PyXAB is not installed: pip install 'PyXAB>=0.3'"
    ) from error
  try:
    module = importlib.import_module(f"PyXAB.algos.{_MODULES.get(name, name)}")
    return getattr(module, name)
  except (ImportError, AttributeError) as error:
    raise ValueError(f"PyXAB has no algorithm {name!r}") from error


def to_simplex(point: chex.Array) -> np.ndarray:
  """Maps a point [E - 1] of the unit box to weights [E]; see the module."""
  point = np.asarray(point, np.float64)
  powers = 1 / np.arange(point.size, 0, -1)
  left = np.append(1.0, np.cumprod((1 - point) ** powers))
  return np.append(left[:-1] - left[1:], left[-1])


def run(
  name: str,
  environment: Environment,
  *,
  num_experts: int,
  num_rounds: int,
  seeds: Sequence[int],
  **options: Any,
) -> Trace:
  """Plays an algorithm of PyXAB in an environment.

  Args:
    name: of the algorithm's class, see `algorithm`.
    environment: of `jax.tree_util.Partial`s, as ours are.
    num_experts: E.
    num_rounds: T.
    seeds: S different integers in [0, 2**31), as in `rollout.run`.
    **options: of the algorithm, such as nu, rho, rounds and partition.

  Returns:
    The trace; its `seconds` hold PyXAB's own time and the environment's.

  Raises:
    ImportError: if PyXAB is not installed.
    ValueError: if the algorithm is unknown or a number is out of range.
  """
  make = functools.partial(
    algorithm(name), domain=_domain(num_experts), **options
  )
  if num_rounds < 1:
    raise ValueError(f"num_rounds must be at least 1, got {num_rounds=}")
  if not seeds:
    raise ValueError(f"seeds must be one or more numbers, got {seeds=}")
  start = time.perf_counter()
  records = [
    _play(make, environment, num_experts, num_rounds, seed) for seed in seeds
  ]
  seconds = time.perf_counter() - start
  record = jax.tree.map(lambda *rows: np.stack(rows), *records)
  return Trace(
    seeds=np.asarray(seeds, np.int64),
    seconds=np.asarray([seconds]),
    chunk_rounds=np.asarray([num_rounds], np.int64),
    **record,
  )


def _domain(num_experts: int) -> list[list[float]]:
  if num_experts < 2:
    raise ValueError(f"num_experts must be at least 2, got {num_experts=}")
  return [[0.0, 1.0] for _ in range(num_experts - 1)]


def _play(
  make: Callable[[], Any],
  environment: Environment,
  num_experts: int,
  num_rounds: int,
  seed: int,
) -> dict[str, Any]:
  """The per-round fields of a `Trace` for one seed, [T, ...] each."""
  with _global_seed(seed):
    player, records = make(), []
    seeds = np.asarray([seed], np.int32)
    bandit = _puppet(num_experts)
    carry = rounds.init(bandit, environment, seeds)
    for t in range(num_rounds):
      weights = to_simplex(player.pull(t + 1)).astype(np.float32)
      state = (jnp.asarray(weights)[None], jnp.zeros(1))
      carry, record = rounds.play(
        bandit,
        environment,
        carry._replace(bandit=state),
        seeds,
        np.int32(t),
        chunk_size=1,
        loop="map",
      )
      player.receive_reward(t + 1, float(carry.bandit[1][0]))
      records.append(jax.tree.map(lambda leaf: np.asarray(leaf)[0], record))
  return jax.tree.map(lambda *rows: np.concatenate(rows), *records)


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
  """Seeds NumPy's global generator, which PyXAB uses, and restores it after."""
  saved = np.random.get_state()
  np.random.seed(seed)
  try:
    yield
  finally:
    np.random.set_state(saved)


def _puppet(num_experts: int) -> Bandit:
  """A bandit that plays the weights in its state and keeps the reward there.

  The round is then that of `rollout`: the same keys, hence the same requests.
  """
  weights = jnp.full(num_experts, 1 / num_experts, jnp.float32)
  return Bandit(
    Partial(_init, weights), Partial(_select), Partial(_keep_reward)
  )


def _init(weights: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
  del key
  return weights, jnp.float32(0)


def _select(key: jax.Array, state: Any, context: Context) -> Decision:
  del key, context
  return Decision(state[0], {})


def _keep_reward(
  key: jax.Array,
  state: Any,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> tuple[jax.Array, jax.Array]:
  del key, decision
  return state[0], slot_reward(context.task_mix, feedback).value
