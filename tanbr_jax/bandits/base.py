"""A bandit: three pure functions over a pytree of arrays.

A bandit picks merge weights for a slot and learns from the rewards that the
slot returned. It is written like an optax transformation: a constructor binds
hyper-parameters and returns a `Bandit`. Letters: V tasks, E experts.

Hyper-parameters that are arrays should be bound with `jax.tree_util.Partial`,
so that a `Bandit` is itself a pytree: `rollout` passes it through `jit` as an
argument, hence a new value of a hyper-parameter does not compile again and
`vmap` sweeps over it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
from jax.tree_util import Partial

from tanbr_jax.simplex.varying import alike

# Ten seeds side by side, and the copy of a round, still fit a small machine.
MOST_STATE_MB = 1000

State = Any
T = TypeVar("T")


class Context(NamedTuple):
  """The part of a slot that a bandit may see before it decides.

  Attributes:
    task_mix: [V] float32 on the simplex, the monitor's estimate of the share
      of each task among the slot's requests (psi in the paper). A bandit does
      not check it, because traced values cannot raise; `rollout` does, between
      chunks.
  """

  task_mix: jax.Array


class Decision(NamedTuple):
  """A bandit's decision for a slot.

  Attributes:
    merge_weights: [E] float32 on the simplex (x in the paper).
    aux: dict from a name to an array: whatever `update` needs, and what a
      reader of the run wants to see. `rollout` traces its scalars.
  """

  merge_weights: jax.Array
  aux: dict[str, jax.Array]


class Feedback(NamedTuple):
  """Rewards that a slot returned.

  Attributes:
    task_reward: [V] float32, the mean reward of each task's requests; its
      value is meaningless (but finite) where `task_count` is 0.
    task_count: [V] int32, requests of each task in the slot. A task with count
      0 was not seen and must not be learnt from.
    gradient: [E] float32, the derivative of the slot's mean log-likelihood (or
      reward) in the merge weights at the point played, without its mean; zeros
      where `gradient_count` is 0; None where an environment never gives it.
    usage: [E] float32 on the simplex, how much the router would use each expert
      for the served tokens; zeros in a slot without one; None where an
      environment never gives it.
    gradient_count: [] int32, requests that the gradient is a mean over. A slot
      with count 0 has no gradient and must not be learnt from. None exactly
      where `gradient` is.
  """

  task_reward: jax.Array
  task_count: jax.Array
  gradient: jax.Array | None = None
  usage: jax.Array | None = None
  gradient_count: jax.Array | None = None


@jax.tree_util.register_static
class Needs(tuple):
  """Names of optional fields of `Feedback` that a bandit cannot do without."""


class Bandit(NamedTuple):
  """A bandit as three pure functions.

  Attributes:
    init: `init(key) -> state`.
    select: `select(key, state, context) -> Decision`; the state is unchanged.
    update: `update(key, state, context, decision, feedback) -> state`.
    needs: names of the optional fields of `Feedback` that `update` reads
      ("gradient", "usage"). It is given no others, so that a run computes no
      signal in vain; `gradient_count` comes with "gradient". A run whose
      environment does not give them is refused before it starts.
  """

  init: Callable[[jax.Array], State]
  select: Callable[[jax.Array, State, Context], Decision]
  update: Callable[[jax.Array, State, Context, Decision, Feedback], State]
  needs: Needs = Needs()


@jax.tree_util.register_static
class Shape(tuple):
  """Sizes of the arrays that a function makes, bound to it with `Partial`.

  A number bound as it is would become a traced array and could not be a size;
  a `Shape` is compared by `jit` instead. Other static values are fields of a
  frozen dataclass that is registered as static too.
  """


def begin(state: T, key: jax.Array) -> T:
  """Returns a state as `init` has to: it varies over devices as its key does.

  Bound to a state it is the `init` of a bandit that always begins alike.
  """
  return alike(state, key)


def as_pytree(functions: Any) -> Any:
  """Returns a `Bandit` (or its mirror) whose plain functions are `Partial`s.

  Only then is it a pytree, which `jit` takes as an argument.
  """
  return type(functions)(
    *(
      Partial(part)
      if callable(part) and not isinstance(part, Partial)
      else part
      for part in functions
    )
  )


def check_at_least(name: str, value: float, least: float) -> None:
  """Raises a ValueError with the value if it is below `least` or NaN.

  A traced value passes.
  """
  if not isinstance(value, jax.core.Tracer) and not value >= least:
    raise ValueError(f"{name} must be at least {least}, got {name}={value}")


def check_sizes(num_experts: int, num_tasks: int) -> None:
  """Refuses what no bandit can play, before any work.

  Args:
    num_experts: E, at least 2, or there is nothing to choose.
    num_tasks: V, at least 1.

  Raises:
    ValueError: if a number is below that.
  """
  check_at_least("num_experts", num_experts, 2)
  check_at_least("num_tasks", num_tasks, 1)


def check_state_size(bandit: Bandit, remedy: str) -> Bandit:
  """Returns the bandit unless its state is larger than MOST_STATE_MB.

  Nothing is allocated: what cannot be kept would end the process without a
  word.

  Args:
    bandit: whose `init` is traced.
    remedy: what to do about it, the end of the error's sentence.

  Raises:
    ValueError: with the size in MB (10^6 bytes).
  """
  state = jax.eval_shape(bandit.init, jax.random.key(0))
  num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  if num_bytes > MOST_STATE_MB * 10**6:
    raise ValueError(
      f"the state would take {num_bytes / 1e6:,.0f} MB, the most is "
      f"{MOST_STATE_MB:,} MB: {remedy}"
    )
  return bandit
