"""The random two-layer reward network and the search for its best weights.

psi . h(x) is not concave, so its maximum over the simplex has no closed form.
`draw` searches once per landscape: for M concentrated mixes, ascent from many
starts, keeping each mix's best weights as a candidate. In a slot, `optimum`
scores the M candidates under the slot's mix and polishes the best few. A
candidate in the right basin can only be outscored there by one whose value is
as good, so that a wrong basin costs at most the distance between a candidate
and its own polished optimum. `tests/environments/test_families.py` measures
the error against a grid and against a heavy search. Letters: V tasks, E
experts, H hidden units, M search mixes, N starts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.environments.static import Static

_NUM_SEARCH_MIXES = 64
_NUM_STARTS = 16
_NUM_SEARCH_STEPS = 150
_NUM_POLISHED = 4
_NUM_POLISH_STEPS = 24
_STEP_SIZE = 1.25


class NetworkParams(NamedTuple):
  """A random reward network and candidates for its best weights.

  Attributes:
    hidden: [H, E] weights of the hidden layer.
    bias: [H] of the hidden layer.
    readout: [V, H] weights of the outputs.
    candidates: [M, E] the best weights for each of M mixes.
    rewards: [M, V] their rewards, h of each candidate.
  """

  hidden: jax.Array
  bias: jax.Array
  readout: jax.Array
  candidates: jax.Array
  rewards: jax.Array


class _Ascent(NamedTuple):
  logits: jax.Array
  value: jax.Array
  slope: jax.Array
  step_size: jax.Array


def draw(shape: Static, key: jax.Array) -> NetworkParams:
  """Draws a network and searches its candidates.

  Args:
    shape: Static((V, E, H)).
    key: random key, consumed.

  Returns:
    The network's parameters.
  """
  num_tasks, num_experts, num_hidden = shape.value
  keys = jax.random.split(key, 5)
  params = NetworkParams(
    hidden=2.0 * jax.random.normal(keys[0], (num_hidden, num_experts)),
    bias=0.5 * jax.random.normal(keys[1], (num_hidden,)),
    readout=0.4
    * jax.random.normal(keys[2], (num_tasks, num_hidden))
    / jnp.sqrt(jnp.float32(num_hidden)),
    candidates=jnp.zeros((_NUM_SEARCH_MIXES, num_experts)),
    rewards=jnp.zeros((_NUM_SEARCH_MIXES, num_tasks)),
  )
  mixes = _search_mixes(keys[3], num_tasks)
  starts = jax.random.dirichlet(keys[4], jnp.ones(num_experts), (_NUM_STARTS,))
  candidates = jax.vmap(
    lambda mix: _polish(params, mix, starts, _NUM_SEARCH_STEPS)[1]
  )(mixes)
  candidates = candidates.swapaxes(0, 1).reshape(-1, num_experts)
  rewards = jax.vmap(lambda x: reward(params, x))(candidates)
  return params._replace(candidates=candidates, rewards=rewards)


def reward(params: NetworkParams, merge_weights: jax.Array) -> jax.Array:
  """h(x) = readout tanh(hidden x + bias), [V]."""
  return params.readout @ jnp.tanh(params.hidden @ merge_weights + params.bias)


def optimum(params: NetworkParams, task_mix: jax.Array) -> jax.Array:
  """The best weights [E] for a mix [V]: the best candidates, polished."""
  scores = params.rewards @ task_mix
  groups = scores.reshape(_NUM_POLISHED, -1)
  best = jnp.argmax(groups, axis=1) + groups.shape[1] * jnp.arange(
    _NUM_POLISHED
  )
  starts = params.candidates[best]
  return _polish(params, task_mix, starts, _NUM_POLISH_STEPS)[0]


def _search_mixes(key: jax.Array, num_tasks: int) -> jax.Array:
  # Half nearly one-hot or pairs, as in concentrated phases; half broader.
  half = _NUM_SEARCH_MIXES // 2
  sharp_key, broad_key = jax.random.split(key)
  sharp = jax.random.dirichlet(sharp_key, jnp.full(num_tasks, 0.15), (half,))
  broad = jax.random.dirichlet(broad_key, jnp.full(num_tasks, 0.5), (half,))
  return jnp.concatenate([sharp, broad])


def _best_ascent(
  params: NetworkParams, mix: jax.Array, starts: jax.Array
) -> jax.Array:
  return _polish(params, mix, starts, _NUM_SEARCH_STEPS)


def _polish(
  params: NetworkParams, mix: jax.Array, starts: jax.Array, num_steps: int
) -> jax.Array:
  """Exponentiated-gradient ascent from starts [N, E]; the best end [E].

  Each start has its own step size, which grows after a step that gains and
  is halved after one that does not (and is not taken).
  """
  output = mix @ params.readout

  def value_and_slope(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    units = jnp.tanh(
      jax.nn.softmax(logits, -1) @ params.hidden.T + params.bias[None, :]
    )
    slope = ((1.0 - units**2) * output[None, :]) @ params.hidden
    return units @ output, slope

  def climb(_: jax.Array, ascent: _Ascent) -> _Ascent:
    logits = ascent.logits + ascent.step_size[:, None] * ascent.slope
    value, slope = value_and_slope(logits)
    gains = value > ascent.value
    return _Ascent(
      logits=jnp.where(gains[:, None], logits, ascent.logits),
      value=jnp.where(gains, value, ascent.value),
      slope=jnp.where(gains[:, None], slope, ascent.slope),
      step_size=ascent.step_size * jnp.where(gains, 1.5, 0.5),
    )

  # A start at a face would stay there: the floor lets any expert come back.
  logits = jnp.log(jnp.maximum(starts, 1e-4))
  step_size = jnp.full(starts.shape[0], _STEP_SIZE)
  start = _Ascent(logits, *value_and_slope(logits), step_size)
  end = jax.lax.fori_loop(0, num_steps, climb, start)
  best = jnp.argmax(end.value)
  return jax.nn.softmax(end.logits, -1)[best], jax.nn.softmax(end.logits, -1)
