"""The compiled part of the online loop: a scan over rounds, for every seed.

Letters: S seeds, C rounds a chunk, V tasks, E experts.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.bandits.base import Bandit, Context, Decision, Feedback
from tanbr_jax.environments.base import Environment, Outcome
from tanbr_jax.online import signals

_ENVIRONMENT_STREAM, _BANDIT_STREAM = 0, 1


class Carry(NamedTuple):
  """States that go from a chunk to the next; every leaf has a leading [S].

  Attributes:
    environment: the environment's states.
    bandit: the bandit's states.
  """

  environment: Any
  bandit: Any


def _stream(seed: jax.Array, stream: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), stream)


@functools.partial(jax.jit, static_argnames=("mesh", "stacked"))
def init(
  bandit: Bandit,
  environment: Environment,
  seeds: jax.Array,
  *,
  mesh: jax.sharding.Mesh | None = None,
  stacked: bool = False,
) -> Carry:
  """The carry before round 0, for seeds [S] int32.

  `mesh` and `stacked` are those of `play`.
  """

  def init_seeds(
    environment: Environment, bandit: Bandit, seeds: jax.Array
  ) -> Carry:
    def init_seed(bandit: Bandit, seed: jax.Array) -> Carry:
      return _init_seed(bandit, environment, seed)

    return jax.vmap(init_seed, in_axes=(_axis(stacked), 0))(bandit, seeds)

  # A weakly typed leaf would leave the first chunk strongly typed, and the
  # second chunk would compile again.
  shared = 1 if stacked else 2
  carry = spread(init_seeds, mesh, shared=shared)(environment, bandit, seeds)
  return jax.tree.map(_strong, carry)


def _axis(stacked: bool) -> int | None:
  return 0 if stacked else None


def _init_seed(
  bandit: Bandit, environment: Environment, seed: jax.Array
) -> Carry:
  # Round t uses fold_in(stream, t + 1), hence 0 is free for `init`.
  return Carry(
    environment.init(jax.random.fold_in(_stream(seed, _ENVIRONMENT_STREAM), 0)),
    bandit.init(jax.random.fold_in(_stream(seed, _BANDIT_STREAM), 0)),
  )


@jax.jit
def first_slot(
  bandit: Bandit, environment: Environment, key: jax.Array
) -> tuple[Decision, Feedback]:
  """A decision and all of its feedback, for their shapes and types alone."""
  state = environment.init(key)
  decision = bandit.select(key, bandit.init(key), environment.context(state))
  feedback, _, _ = environment.step(key, state, decision.merge_weights)
  return decision, feedback


def _strong(leaf: jax.Array) -> jax.Array:
  return jnp.asarray(leaf, leaf.dtype)


@functools.partial(
  jax.jit, static_argnames=("chunk_size", "loop", "mesh", "stacked")
)
def play(
  bandit: Bandit,
  environment: Environment,
  carry: Carry,
  seeds: jax.Array,
  start: jax.Array,
  *,
  chunk_size: int,
  loop: str,
  mesh: jax.sharding.Mesh | None = None,
  stacked: bool = False,
) -> tuple[Carry, dict[str, Any]]:
  """Plays C rounds for every seed.

  Args:
    bandit: a pytree of `Partial`s.
    environment: a pytree of `Partial`s.
    carry: of the chunk before, or of `init`.
    seeds: [S] int32.
    start: [] int32, the first round.
    chunk_size: C.
    loop: "vmap" or "map" over the seeds of a device.
    mesh: of one axis, over whose devices the seeds are spread in equal parts;
      None for the one device where JAX computes.
    stacked: whether the bandit's leaves have a leading [S], one bandit a seed.

  Returns:
    The carry, and the per-round fields of `Trace` as arrays of [S, C, ...].
  """

  def play_seeds(
    environment: Environment,
    start: jax.Array,
    bandit: Bandit,
    carry: Carry,
    seeds: jax.Array,
  ) -> tuple[Carry, dict[str, Any]]:
    rounds = start + jnp.arange(chunk_size, dtype=jnp.int32)

    def play_seed(
      bandit: Bandit, carry: Carry, seed: jax.Array
    ) -> tuple[Carry, dict[str, Any]]:
      return jax.lax.scan(
        functools.partial(_round, bandit, environment, seed), carry, rounds
      )

    if loop == "map" and stacked:
      return jax.lax.map(lambda one: play_seed(*one), (bandit, carry, seeds))
    if loop == "map":
      return jax.lax.map(lambda one: play_seed(bandit, *one), (carry, seeds))
    in_axes = _axis(stacked), 0, 0
    return jax.vmap(play_seed, in_axes=in_axes)(bandit, carry, seeds)

  shared = 2 if stacked else 3
  return spread(play_seeds, mesh, shared=shared)(
    environment, start, bandit, carry, seeds
  )


def spread(
  function: Callable[..., Any], mesh: jax.sharding.Mesh | None, *, shared: int
) -> Callable[..., Any]:
  """Lets every device of the mesh compute on its own part of the seeds.

  Seeds never meet, hence no device waits for another. Whether a loop's carry
  begins as it goes on, in the axes along which it varies, is not checked: an
  environment need not know that there are devices.

  Args:
    function: of arguments that all devices share, then of others whose leaves
      have a leading [S].
    mesh: None for no devices but one.
    shared: how many arguments are shared.
  """
  if mesh is None:
    return function
  whole, parts = jax.P(), jax.P(mesh.axis_names)

  def on_devices(*args: Any) -> Any:
    specs = tuple(whole if i < shared else parts for i in range(len(args)))
    return jax.shard_map(
      function, mesh=mesh, in_specs=specs, out_specs=parts, check_vma=False
    )(*args)

  return on_devices


def _round(
  bandit: Bandit,
  environment: Environment,
  seed: jax.Array,
  carry: Carry,
  index: jax.Array,
) -> tuple[Carry, dict[str, Any]]:
  """One slot: the bandit decides, the environment serves, the bandit learns."""
  slot_key = jax.random.fold_in(
    _stream(seed, _ENVIRONMENT_STREAM), index + jnp.int32(1)
  )
  select_key, update_key = jax.random.split(
    jax.random.fold_in(_stream(seed, _BANDIT_STREAM), index + jnp.int32(1))
  )
  context = environment.context(carry.environment)
  # A GPU's default rounds the factors of float32 products to 10 bits: sums of
  # weights miss 1, and what a learner solved for is off.
  with jax.default_matmul_precision("float32"):
    decision = bandit.select(select_key, carry.bandit, context)
  feedback, outcome, environment_state = environment.step(
    slot_key, carry.environment, decision.merge_weights
  )
  feedback, hidden = signals.shown(feedback, bandit.needs)
  with jax.default_matmul_precision("float32"):
    bandit_state = bandit.update(
      update_key, carry.bandit, context, decision, feedback
    )
  record = _record(context, decision, feedback, outcome, hidden)
  return Carry(environment_state, bandit_state), record


def _record(
  context: Context,
  decision: Decision,
  feedback: Feedback,
  outcome: Outcome,
  hidden: signals.Hidden,
) -> dict[str, Any]:
  return {
    "expected_reward": outcome.expected_reward,
    "realised_reward": outcome.realised_reward,
    "optimal_reward": outcome.optimal_reward,
    "merge_weights": decision.merge_weights,
    "task_mix": outcome.task_mix,
    "shown_mix": context.task_mix,
    "task_count": feedback.task_count,
    "nonfinite_rewards": hidden.rewards,
    "nonfinite_signals": hidden.signals,
    "aux": {
      name: value
      for name, value in decision.aux.items()
      if jnp.ndim(value) == 0
    },
  }
