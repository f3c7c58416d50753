"""Neural-linear: Bayesian linear regression on a network's last layer.

Riquelme, Tucker, Snoek, "Deep Bayesian Bandits Showdown", ICLR 2018, sec. 4:
task v's reward is w_v . phi(x) plus noise, phi the last hidden layer and a 1,
with the exact posterior of w_v; a sample of it is maximised. The network is
trained now and then, and the posterior is then computed anew on the new phi.

The sample is of N(w_v, s_v^2 A_v): [R] s_v^2 is its posterior mean under a
prior worth _PRIOR_SLOTS slots, where the paper samples it (inverse gamma),
since `jax.random.gamma` is slow inside a scan. Slots that have left the replay
ring are forgotten when the network is trained [R].
Letters: V tasks, E experts, P features, R replayed slots.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.neural import neural_config, neural_training
from tanbr_jax.bandits.neural.neural_bandit import neural_bandit
from tanbr_jax.bandits.neural.neural_model import init_state, remember
from tanbr_jax.bandits.neural.neural_structure import (
  NeuralState,
  Numbers,
  Structure,
)
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.regression import ridge, square_root

_PRIOR_SLOTS = 8.0


class NeuralLinearState(NamedTuple):
  """State of the neural-linear reward model.

  Attributes:
    network: of the network and its ring of slots.
    posterior: of the tasks' coefficients on the network's features.
    squares: [V] sum of squared innovations, each over its variance in units
      of the noise's.
    num_seen: [V] float32, slots behind `squares`.
    num_slots: [] int32, slots learnt from.
  """

  network: NeuralState
  posterior: ridge.RidgeState
  squares: jax.Array
  num_seen: jax.Array
  num_slots: jax.Array


class _Bound(NamedTuple):
  structure: Structure
  numbers: Numbers
  regression: ridge.Ridge
  noise: jax.Array
  retrain_every: jax.Array


def _init(bound: _Bound, key) -> NeuralLinearState:
  zeros = jnp.zeros(bound.structure.num_tasks, jnp.float32)
  network = init_state(bound.structure, bound.numbers, key)
  return NeuralLinearState(
    network, bound.regression.init(), zeros, jnp.copy(zeros), jnp.int32(0)
  )


def _features(bound: _Bound, params, weights) -> jax.Array:
  return bound.structure.network.apply(params, weights, method="features")


def _noise_variance(bound: _Bound, state: NeuralLinearState) -> jax.Array:
  """Returns s^2 [V]."""
  prior = _PRIOR_SLOTS * bound.noise**2
  return (prior + state.squares) / (_PRIOR_SLOTS + state.num_seen)


def _estimate(bound: _Bound, key, state: NeuralLinearState, task_mix):
  posterior = state.posterior
  mean = (posterior.weights + posterior.weights_low) @ task_mix
  draws = jax.random.normal(key, posterior.root.high.shape[:2])
  draws = draws * (task_mix * jnp.sqrt(_noise_variance(bound, state)))[:, None]
  sample = jnp.sum(jax.vmap(square_root.colour)(posterior.root, draws), axis=0)
  sample = bound.numbers.exploration * sample

  def estimate(weights):
    features = _features(bound, state.network.params, weights)
    return jnp.dot(mean, features), jnp.dot(sample, features)

  return estimate


def _update(bound: _Bound, key, state, task_mix, weights, feedback):
  del task_mix
  reward, count = reward_model.observed(feedback)
  seen = (count > 0).astype(jnp.float32)
  learnt = jnp.any(count > 0)
  features = _features(bound, state.network.params, weights)
  error = reward - bound.regression.predict(state.posterior, features)
  variance = bound.regression.variance(state.posterior, features)
  squares = seen * error**2 / (1 / jnp.maximum(count, 1) + variance)
  num_slots = state.num_slots + learnt.astype(jnp.int32)
  state = NeuralLinearState(
    network=remember(bound.structure, state.network, weights, reward, count),
    posterior=bound.regression.update(state.posterior, features, reward, count),
    squares=state.squares + squares,
    num_seen=state.num_seen + seen,
    num_slots=num_slots,
  )
  due = learnt & (num_slots.astype(jnp.float32) % bound.retrain_every == 0)

  def retrain(_, changing):
    params, opt_state = changing[:2]
    network = state.network._replace(params=params, opt_state=opt_state)
    network = neural_training.train(
      bound.structure, bound.numbers, key, network, learnt
    )
    posterior, squares, num_seen = regress(bound, network)
    return network.params, network.opt_state, posterior, squares, num_seen

  # No turn in most rounds: a loop costs nothing then, under `vmap` neither.
  params, opt_state, *rest = jax.lax.fori_loop(
    0,
    due.astype(jnp.int32),
    retrain,
    (state.network.params, state.network.opt_state, *state[1:4]),
  )
  network = state.network._replace(params=params, opt_state=opt_state)
  return NeuralLinearState(network, *rest, num_slots)


def regress(
  bound: _Bound, network: NeuralState
) -> tuple[ridge.RidgeState, jax.Array, jax.Array]:
  """Returns the posterior given the ring's slots and the network's features.

  For each task the rows sqrt(count) [phi, r] under [sqrt(lambda) I, 0] are
  factored as Q T, a block of slots after another. T's corner is a triangular
  square root of A^-1, from which follow S = T^-1 with A = S S' and the
  coefficients; its last entry is the norm of what is left over. Unlike a
  Cholesky factor of the summed products, that does not square the condition
  number, which float32 could not bear.

  Args:
    bound: of the bandit.
    network: the network and the ring.

  Returns:
    the posterior, `squares` [V] and `num_seen` [V] of the state.
  """
  size = bound.structure.network.num_features

  def add(triangles, weights, rewards, counts):
    features = jax.vmap(_features, (None, None, 0))(
      bound, network.params, weights
    )

    def one_task(triangle, reward, count):
      rows = jnp.concatenate([features, reward[:, None]], axis=1)
      rows = jnp.sqrt(count)[:, None] * rows
      return jnp.linalg.qr(jnp.concatenate([triangle, rows]), mode="r")

    return jax.vmap(one_task, (0, 1, 1))(triangles, rewards, counts)

  prior = jnp.sqrt(bound.numbers.regularisation) * jnp.eye(size)
  prior = jnp.pad(prior, (0, 1))
  triangles = jnp.tile(prior, (bound.structure.num_tasks, 1, 1))
  triangles = neural_training.fold_slots(
    bound.structure, network, add, triangles
  )
  solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=False)
  corners = triangles[:, :size, :size]
  roots = jax.vmap(solve, (0, None))(corners, jnp.eye(size))
  weights = jax.vmap(solve)(corners, triangles[:, :size, size]).T
  posterior = ridge.RidgeState(
    root=square_root.SquareRoot(roots, jnp.zeros_like(roots)),
    weights=weights,
    weights_low=jnp.zeros_like(weights),
  )
  num_seen = jnp.sum((network.counts > 0).astype(jnp.float32), axis=0)
  return posterior, triangles[:, size, size] ** 2, num_seen


def neural_linear(
  *,
  num_experts: int,
  num_tasks: int,
  retrain_every: int = 50,
  noise: float = 0.05,
  exploration: float = 0.5,
  regularisation: float = 0.1,
  hidden: tuple[int, ...] = (64, 32),
  num_steps: int = 200,
  **overrides: Any,
) -> Bandit:
  """Thompson sampling of a linear model on a network's last layer.

  Args:
    num_experts: E.
    num_tasks: V.
    retrain_every: slots between two trainings of the network.
    noise: s, what the rewards' noise is taken to be before it was seen.
    exploration: factor of the posterior's standard deviation; 1 is the paper's.
    regularisation: lambda, the noise's variance over the prior's.
    hidden: widths of the hidden layers; the last one's is P - 1.
    num_steps: gradient steps of one training.
    **overrides: further fields of `neural_config.NeuralConfig`; those of the
      width do nothing.

  Returns:
    A `Bandit`; see `neural_bandit` for its decisions' aux, in which
    exploration_bonus is what the sample added to the mean.

  Raises:
    ValueError: if a field is not known, or a value out of range.
  """
  if retrain_every < 1:
    raise ValueError(
      f"retrain_every must be at least 1, got retrain_every={retrain_every}"
    )
  config = neural_config.resolve(
    "default",
    {
      "noise": noise,
      "exploration": exploration,
      "regularisation": regularisation,
      "hidden": hidden,
      "num_steps": num_steps,
      **overrides,
    },
  )
  structure = neural_config.structure(config, num_experts, num_tasks)
  regression = ridge.per_task(
    num_features=structure.network.num_features,
    num_tasks=num_tasks,
    regularisation=regularisation,
  )
  bound = _Bound(
    structure,
    jax.tree.map(jnp.float32, neural_config.numbers(config)),
    regression,
    jnp.float32(noise),
    jnp.float32(retrain_every),
  )
  model = RewardModel(
    *(Partial(part, bound) for part in (_init, _estimate, _update))
  )
  return neural_bandit(
    model,
    neural_config.source(config, num_experts),
    neural_config.rule(config, "bonus"),
  )
