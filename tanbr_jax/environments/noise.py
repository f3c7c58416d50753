"""Noise that lies between the tasks' mean rewards and what a slot shows.

A `Sampler` is `sampler(key, mean_reward [V], tasks [B], count [V]) -> [V]`: the
mean reward of each task's requests, 0 for a task with none. Letters: V tasks,
B requests.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import Count, NonNegative

Sampler = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
KINDS = ("bernoulli", "gaussian", "heavy_tailed", "task_dependent")


@ranges.checked
def create(kind: str, *, noise: NonNegative, num_tasks: Count) -> Sampler:
  """The noise called `kind`, all with independent requests.

  "gaussian": a request's reward is its task's mean plus N(0, noise^2).
  "task_dependent": the same with a deviation that grows by equal factors from
  noise / 2 of the first task to 2 noise of the last.
  "heavy_tailed": plus noise times a Student t of 3 degrees of freedom over
  sqrt(3), hence the deviation `noise` and no finite third moment.
  "bernoulli": the reward is 1 with the mean as its probability, else 0;
  `noise` has no meaning there.

  Args:
    kind: as above.
    noise: standard deviation of the reward of one request.
    num_tasks: V.

  Returns:
    A `Sampler`, a pytree.

  Raises:
    ValueError: the kind is unknown or noise is negative.
  """
  check_choice("noise_kind", kind, KINDS)
  deviation = jnp.float32(noise)
  if kind == "bernoulli":
    return Partial(_bernoulli)
  if kind == "heavy_tailed":
    return Partial(_heavy_tailed, deviation)
  if kind == "task_dependent":
    deviation = deviation * jnp.exp2(
      jnp.linspace(-1.0, 1.0, num_tasks, dtype=jnp.float32)
    )
  return Partial(_gaussian, deviation)


def _gaussian(
  deviation: jax.Array,
  key: jax.Array,
  mean_reward: jax.Array,
  tasks: jax.Array,
  count: jax.Array,
) -> jax.Array:
  # The mean of c normal draws is one normal draw: the requests are not needed.
  del tasks
  noises = deviation * jax.random.normal(key, mean_reward.shape, jnp.float32)
  spread = jnp.sqrt(jnp.maximum(count, 1).astype(jnp.float32))
  return jnp.where(count > 0, mean_reward + noises / spread, 0.0)


def _heavy_tailed(
  deviation: jax.Array,
  key: jax.Array,
  mean_reward: jax.Array,
  tasks: jax.Array,
  count: jax.Array,
) -> jax.Array:
  # t_3 = z / sqrt(chi^2_3 / 3) has variance 3. Normals alone, because gamma
  # draws take seconds to compile.
  draws = jax.random.normal(key, (4, tasks.shape[0]), jnp.float32)
  noises = deviation * draws[0] / jnp.sqrt(jnp.sum(draws[1:] ** 2, axis=0))
  shown = mean_reward + _mean_of_task(noises, tasks, count)
  return jnp.where(count > 0, shown, 0.0)


def _bernoulli(
  key: jax.Array, mean_reward: jax.Array, tasks: jax.Array, count: jax.Array
) -> jax.Array:
  draws = jax.random.uniform(key, tasks.shape, jnp.float32)
  hits = (draws < mean_reward[tasks]).astype(jnp.float32)
  return _mean_of_task(hits, tasks, count)


def _mean_of_task(
  values: jax.Array, tasks: jax.Array, count: jax.Array
) -> jax.Array:
  """Means [V] of the values [B] of each task's requests, 0 for none."""
  is_of_task = (
    tasks[None, :] == jnp.arange(count.shape[0], dtype=jnp.int32)[:, None]
  )
  sums = is_of_task.astype(jnp.float32) @ values
  return sums / jnp.maximum(count, 1).astype(jnp.float32)
