"""The random two-layer reward network and the search for its best weights.

psi . h(x) is not concave, so its maximum over the simplex has no closed form.
`draw` searches once per landscape: for each of M mixes, projected gradient
ascent from N starts, random ones and vertices. Every end is a candidate, also
the worse ones, because they are the best for other mixes. In a slot, `optimum`
scores all candidates under the slot's mix, polishes the best of each of a few
groups of them, and then the best of these. Against ascent from 328 starts a
mix, on 16 fresh landscapes and 1,536 mixes at V = E = 8, the value that this
finds is less than 1e-5 too low but for one mix, where it is .002 too low;
rewards range over about 2. Letters: V tasks, E experts, H hidden units, M
search mixes, N starts, C = M N candidates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.bandits.base import Shape
from tanbr_jax.simplex.ascent import climb
from tanbr_jax.simplex.points import dirichlet, dirichlet_one
from tanbr_jax.simplex.search import best

_NUM_MIXES = 256
_NUM_STARTS = 32
_NUM_VERTICES = 8
_NUM_SEARCH_STEPS = 60
_NUM_POLISHED = 32
_NUM_POLISH_STEPS = 12
_NUM_FINAL_STEPS = 30
_FIRST_STEP_SIZE = 0.5


class NetworkParams(NamedTuple):
  """A random reward network and candidates for its best weights.

  Attributes:
    hidden: [H, E] weights of the hidden layer.
    bias: [H] of the hidden layer.
    readout: [V, H] weights of the outputs.
    candidates: [C, E] local maxima under one mix or another.
    rewards: [C, V] their rewards, h of each candidate.
  """

  hidden: jax.Array
  bias: jax.Array
  readout: jax.Array
  candidates: jax.Array
  rewards: jax.Array


def draw(sizes: Shape, key: jax.Array) -> NetworkParams:
  """Draws a network and searches its candidates.

  Args:
    sizes: Shape((V, E, H)).
    key: random key, consumed.

  Returns:
    The network's parameters.
  """
  num_tasks, num_experts, num_hidden = sizes
  keys = jax.random.split(key, 5)
  readout = jax.random.normal(keys[2], (num_tasks, num_hidden), jnp.float32)
  params = NetworkParams(
    hidden=2.0
    * jax.random.normal(keys[0], (num_hidden, num_experts), jnp.float32),
    bias=0.5 * jax.random.normal(keys[1], (num_hidden,), jnp.float32),
    readout=0.4 * readout / jnp.sqrt(jnp.float32(num_hidden)),
    candidates=jnp.zeros((0, num_experts), jnp.float32),
    rewards=jnp.zeros((0, num_tasks), jnp.float32),
  )
  mixes = _search_mixes(keys[3], num_tasks)
  starts = _starts(keys[4], num_experts)
  # In batches: all mixes at once would outgrow the cache.
  ends = jax.lax.map(
    lambda mix: _climb(params, mix, starts, num_steps=_NUM_SEARCH_STEPS)[0],
    mixes,
    batch_size=64,
  )
  # A start's ends come together, so that each of `optimum`'s groups, which
  # holds every 32nd candidate, has the ends of some mixes from all starts.
  candidates = jnp.swapaxes(ends, 0, 1).reshape(-1, num_experts)
  rewards = jax.vmap(lambda x: reward(params, x))(candidates)
  return params._replace(candidates=candidates, rewards=rewards)


def reward(params: NetworkParams, merge_weights: jax.Array) -> jax.Array:
  """h(x) = readout tanh(hidden x + bias), [V]."""
  return params.readout @ jnp.tanh(params.hidden @ merge_weights + params.bias)


def bounds(params: NetworkParams) -> tuple[jax.Array, jax.Array]:
  """Bounds on the reward of every task, from those of every hidden unit."""
  low = jnp.tanh(jnp.min(params.hidden, axis=1) + params.bias)
  high = jnp.tanh(jnp.max(params.hidden, axis=1) + params.bias)
  ends = params.readout * low[None, :], params.readout * high[None, :]
  return (
    jnp.min(jnp.sum(jnp.minimum(*ends), axis=1)),
    jnp.max(jnp.sum(jnp.maximum(*ends), axis=1)),
  )


def optimum(params: NetworkParams, task_mix: jax.Array) -> jax.Array:
  """The best weights [E] for a mix [V], from the candidates.

  A candidate loses at most the distance to its own polished end, hence a
  wrong basin is polished only if it is almost as good as the right one. The
  groups guard against that; an argmax in each is cheaper than a top-k.
  """
  scores = (params.rewards @ task_mix).reshape(-1, _NUM_POLISHED)
  chosen = jax.vmap(best, 1)(scores) * _NUM_POLISHED
  chosen += jnp.arange(_NUM_POLISHED, dtype=jnp.int32)
  ends, values = _climb(
    params, task_mix, params.candidates[chosen], num_steps=_NUM_POLISH_STEPS
  )
  winner = ends[best(values)][None]
  return _climb(params, task_mix, winner, num_steps=_NUM_FINAL_STEPS)[0][0]


def _starts(key: jax.Array, num_experts: int) -> jax.Array:
  """Draws, and some vertices, without which maxima at the rim are missed."""
  vertices = jnp.eye(num_experts, dtype=jnp.float32)[:_NUM_VERTICES]
  num_draws = _NUM_STARTS - vertices.shape[0]
  draws = dirichlet_one(key, (num_draws, num_experts))
  return jnp.concatenate([draws, vertices])


def _search_mixes(key: jax.Array, num_tasks: int) -> jax.Array:
  # Half as concentrated as a stream's phases, half broader. One call: a gamma
  # draw takes seconds to compile.
  is_sharp = jnp.arange(_NUM_MIXES, dtype=jnp.int32) // (_NUM_MIXES // 2) == 0
  concentration = jnp.where(is_sharp, 0.15, 0.7)[:, None]
  return dirichlet(key, concentration, (_NUM_MIXES, num_tasks))


def _climb(
  params: NetworkParams, mix: jax.Array, starts: jax.Array, *, num_steps: int
) -> tuple[jax.Array, jax.Array]:
  """Ascends psi . h from starts [N, E]: ends [N, E] and values [N]."""
  output = mix @ params.readout

  def value_and_slope(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    units = jnp.tanh(weights @ params.hidden.T + params.bias[None, :])
    slope = ((1.0 - units**2) * output[None, :]) @ params.hidden
    return units @ output, slope

  return climb(
    value_and_slope, starts, num_steps=num_steps, step_size=_FIRST_STEP_SIZE
  )
