"""How the share of each task among a slot's requests moves over time.

A `TaskMix` is three pure functions over a pytree, like an environment. The
sequence of mixes depends on the keys alone, never on the weights played.
Every process here visits concentrated mixes, in which one or two tasks
dominate: under a broad mix the best static weights and the best weights for
the mix are almost the same, and there is nothing to learn. The paper varies
the mix between slots but does not give its law, so that all three processes
are a [R] reconstruction. Letters: V tasks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.tree_util import Partial

from tanbr_jax.environments import static

State = Any


class TaskMix(NamedTuple):
  """A process of task mixes as three pure functions.

  Attributes:
    init: `init(key) -> state`.
    mix: `mix(state) -> [V]` float32 on the simplex, the mix of the slot that
      comes.
    step: `step(key, state) -> state` of the next slot.
  """

  init: Callable[[jax.Array], State]
  mix: Callable[[State], jax.Array]
  step: Callable[[jax.Array, State], State]


class PiecewiseState(NamedTuple):
  """State of `piecewise`.

  Attributes:
    phases: [P, V] the mixes of the phases, drawn once in `init`.
    slot: [] int32, slots since the start.
  """

  phases: jax.Array
  slot: jax.Array


def fixed(
  mix: jax.Array | None = None,
  *,
  num_tasks: int | None = None,
  concentration: float = 0.25,
) -> TaskMix:
  """The same mix in every slot.

  Args:
    mix: [V] on the simplex; None draws one Dirichlet(concentration) mix from
      the key of `init`, so that every seed has its own.
    num_tasks: V; may be left out when `mix` is given.
    concentration: of the Dirichlet, small for concentrated mixes.

  Returns:
    A `TaskMix` whose state is the mix.

  Raises:
    ValueError: if `mix` is not on the simplex or not of length `num_tasks`, or
      if neither is given.
  """
  if mix is None:
    if num_tasks is None:
      raise ValueError("fixed needs mix or num_tasks, got neither")
    _check(num_tasks, concentration)
    init = Partial(
      _draw_mix, static.Static(num_tasks), jnp.float32(concentration)
    )
  else:
    init = Partial(_return_mix, _checked_mix(mix, num_tasks))
  return TaskMix(init, Partial(_identity), Partial(_stay))


def drift(
  *, num_tasks: int, rate: float = 0.002, concentration: float = 0.25
) -> TaskMix:
  """A slow random walk: softmax of an Ornstein-Uhlenbeck process z [V].

  `z <- (1 - rate) z + scale sqrt(1 - (1 - rate)^2) N(0, I)`, started in its
  stationary law N(0, scale^2 I). `scale^2` is the variance of the logarithm
  of a Gamma(concentration) variable, trigamma(concentration): softmax of such
  logarithms is Dirichlet(concentration), hence the walk visits mixes about as
  concentrated as that.

  Args:
    num_tasks: V.
    rate: in (0, 1]; 1 / rate is the correlation time of z in slots.
    concentration: > 0, small for concentrated mixes.

  Returns:
    A `TaskMix` whose state is z.

  Raises:
    ValueError: if an argument is out of range.
  """
  _check(num_tasks, concentration)
  if not 0.0 < rate <= 1.0:
    raise ValueError(f"rate must be in (0, 1], got rate={rate}")
  scale = jnp.float32(np.sqrt(scipy.special.polygamma(1, concentration)))
  return TaskMix(
    Partial(_draw_logits, static.Static(num_tasks), scale),
    Partial(jax.nn.softmax),
    Partial(_walk, jnp.float32(rate), scale),
  )


def piecewise(
  *,
  num_tasks: int,
  length: int = 250,
  concentration: float = 0.25,
  num_phases: int = 512,
) -> TaskMix:
  """A new Dirichlet(concentration) mix every `length` slots.

  All mixes are drawn in `init`, because a Dirichlet draw inside a scan costs
  more than the rest of a round; after `num_phases` phases they come again.

  Args:
    num_tasks: V.
    length: slots of a phase, >= 1.
    concentration: of the Dirichlet, small for concentrated mixes.
    num_phases: P, phases before the sequence repeats, >= 1.

  Returns:
    A `TaskMix` over `PiecewiseState`.

  Raises:
    ValueError: if an argument is out of range.
  """
  _check(num_tasks, concentration)
  if length < 1 or num_phases < 1:
    raise ValueError(
      "length and num_phases must be at least 1, got "
      f"length={length}, num_phases={num_phases}"
    )
  shape = static.Static((num_phases, num_tasks))
  return TaskMix(
    Partial(_draw_phases, shape, jnp.float32(concentration)),
    Partial(_phase, jnp.int32(length)),
    Partial(_count_slot),
  )


def create(name: str, *, num_tasks: int, **options: Any) -> TaskMix:
  """The process called `name`: "fixed", "drift" or "piecewise".

  Args:
    name: as above.
    num_tasks: V.
    **options: of the constructor of that name.

  Returns:
    A `TaskMix`.

  Raises:
    ValueError: if the name is unknown or an option is out of range.
  """
  constructors = {"fixed": fixed, "drift": drift, "piecewise": piecewise}
  if name not in constructors:
    raise ValueError(
      f"task_mix must be one of {sorted(constructors)}, got {name!r}"
    )
  return constructors[name](num_tasks=num_tasks, **options)


def check_mix_length(task_mix: TaskMix, num_tasks: int) -> None:
  """Raises a ValueError unless the mixes of `task_mix` are [num_tasks]."""
  shape = jax.eval_shape(
    lambda key: task_mix.mix(task_mix.init(key)), jax.random.key(0)
  ).shape
  if shape != (num_tasks,):
    raise ValueError(
      f"task_mix must have shape [num_tasks], got shape {list(shape)}, "
      f"num_tasks={num_tasks}"
    )


def _check(num_tasks: int, concentration: float) -> None:
  if num_tasks < 2:
    raise ValueError(f"num_tasks must be at least 2, got num_tasks={num_tasks}")
  if not concentration > 0.0:
    raise ValueError(
      f"concentration must be positive, got concentration={concentration}"
    )


def _checked_mix(mix: jax.Array, num_tasks: int | None) -> jax.Array:
  values = np.asarray(mix, np.float64)
  if values.ndim != 1 or num_tasks not in (None, values.size):
    raise ValueError(
      f"mix must have shape [num_tasks], got shape {list(values.shape)}, "
      f"num_tasks={num_tasks}"
    )
  if not (values >= 0).all() or abs(values.sum() - 1.0) > 1e-5:
    raise ValueError(f"mix must lie on the simplex, got mix={values.tolist()}")
  return jnp.asarray(values, jnp.float32)


def _draw_mix(
  num_tasks: static.Static, concentration: jax.Array, key: jax.Array
) -> jax.Array:
  return _dirichlet(key, concentration, (num_tasks.value,))


def _dirichlet(
  key: jax.Array, concentration: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  # In logarithms, because Gamma(0.05) often underflows float32.
  return jax.nn.softmax(jax.random.loggamma(key, concentration, shape), -1)


def _return_mix(mix: jax.Array, key: jax.Array) -> jax.Array:
  del key
  return mix


def _identity(state: jax.Array) -> jax.Array:
  return state


def _stay(key: jax.Array, state: jax.Array) -> jax.Array:
  del key
  return state


def _draw_logits(
  num_tasks: static.Static, scale: jax.Array, key: jax.Array
) -> jax.Array:
  return scale * jax.random.normal(key, (num_tasks.value,))


def _walk(
  rate: jax.Array, scale: jax.Array, key: jax.Array, logits: jax.Array
) -> jax.Array:
  keep = 1.0 - rate
  spread = scale * jnp.sqrt(rate * (1.0 + keep))
  return keep * logits + spread * jax.random.normal(key, logits.shape)


def _draw_phases(
  shape: static.Static, concentration: jax.Array, key: jax.Array
) -> PiecewiseState:
  phases = _dirichlet(key, concentration, shape.value)
  return PiecewiseState(phases, jnp.int32(0))


def _phase(length: jax.Array, state: PiecewiseState) -> jax.Array:
  return state.phases[(state.slot // length) % state.phases.shape[0]]


def _count_slot(key: jax.Array, state: PiecewiseState) -> PiecewiseState:
  del key
  return state._replace(slot=state.slot + 1)
