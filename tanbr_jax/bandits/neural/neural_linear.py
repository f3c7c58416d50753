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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.model_bandit import model_bandit, named_candidates
from tanbr_jax.bandits.neural.neural_learner import (
  Learner,
  LearnerState,
  Rates,
  fold_slots,
  make_rates,
)
from tanbr_jax.bandits.neural.neural_training import ADAM
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, NonNegative, Positive
from tanbr_jax.regression import ridge, square_root

_PRIOR_SLOTS = 8.0


class NeuralLinearState(NamedTuple):
  """State of the neural-linear reward model."""

  learner: LearnerState
  posterior: ridge.RidgeState  # of coefficients on the network's features
  squares: jax.Array  # [V] sum of innovations^2 over variance / noise variance
  num_seen: jax.Array  # [V] float32, slots behind `squares`


class _Model(NamedTuple):
  """The parts of the reward model; all but the learner is traced."""

  learner: Learner
  regression: ridge.Ridge
  rates: Rates
  exploration: jax.Array
  regularisation: jax.Array
  noise: jax.Array
  retrain_every: jax.Array

  def features(self, params, weights) -> jax.Array:
    """Returns phi(x), [P]."""
    return self.learner.network.apply(params, weights, features=True)


def _init(model: _Model, key) -> NeuralLinearState:
  zeros = jnp.zeros(model.learner.network.num_tasks, jnp.float32)
  return NeuralLinearState(
    model.learner.init(key), model.regression.init(), zeros, jnp.copy(zeros)
  )


def _noise_variance(model: _Model, state: NeuralLinearState) -> jax.Array:
  """Returns s^2 [V]."""
  noise = model.noise * reward_model.spread(state.learner.replay.scale)
  prior = _PRIOR_SLOTS * noise**2
  return (prior + state.squares) / (_PRIOR_SLOTS + state.num_seen)


def _estimate(model: _Model, key, state: NeuralLinearState, task_mix):
  posterior = state.posterior
  mean = (posterior.weights + posterior.weights_low) @ task_mix
  draws = jax.random.normal(key, posterior.root.high.shape[:2], jnp.float32)
  draws = draws * (task_mix * jnp.sqrt(_noise_variance(model, state)))[:, None]
  sample = jnp.sum(jax.vmap(square_root.colour)(posterior.root, draws), axis=0)
  sample = model.exploration * sample

  def estimate(weights):
    features = model.features(state.learner.params, weights)
    return jnp.dot(mean, features), jnp.dot(sample, features)

  return estimate


def _update(model: _Model, key, state, task_mix, weights, feedback):
  del task_mix
  # The slot enters the ring and the posterior on the features as they are.
  reward, count = reward_model.observed(feedback)
  seen = (count > 0).astype(jnp.float32)
  features = model.features(state.learner.params, weights)
  error = reward - model.regression.predict(state.posterior, features)
  variance = model.regression.variance(state.posterior, features)
  squares = seen * error**2 / (1 / jnp.maximum(count, 1) + variance)
  learner, learnt = model.learner.remember(state.learner, weights, feedback)
  start = (
    learner.params,
    learner.opt_state,
    model.regression.update(state.posterior, features, reward, count),
    state.squares + squares,
    state.num_seen + seen,
  )
  # Now and then the network is trained, and the posterior computed anew.
  due = learnt & (learner.replay.num_slots % model.retrain_every == 0)

  def retrain(_, changing):
    params, opt_state = changing[:2]
    network = learner._replace(params=params, opt_state=opt_state)
    network = model.learner.training.train(
      model.learner, model.rates, key, network, learnt
    )
    return network.params, network.opt_state, *regress(model, network)

  # No turn in most rounds: a loop costs nothing then, under `vmap` neither.
  params, opt_state, *rest = jax.lax.fori_loop(
    0, due.astype(jnp.int32), retrain, start
  )
  learner = learner._replace(params=params, opt_state=opt_state)
  return NeuralLinearState(learner, *rest)


def regress(
  model: _Model, state: LearnerState
) -> tuple[ridge.RidgeState, jax.Array, jax.Array]:
  """Returns the posterior given the ring's slots and the network's features.

  For each task the rows sqrt(count) [phi, r] under [sqrt(lambda) I, 0] are
  factored as Q T, a block of slots after another. T's corner is a triangular
  square root of A^-1, from which follow S = T^-1 with A = S S' and the
  coefficients; its last entry is the norm of what is left over. Unlike a
  Cholesky factor of the summed products, that does not square the condition
  number, which float32 could not bear.

  Args:
    model: of the bandit.
    state: the network and the ring.

  Returns:
    the posterior, `squares` [V] and `num_seen` [V] of the state.
  """
  network = model.learner.network
  size = network.num_features

  # A block of slots joins the triangle of every task.
  def add(triangles, weights, rewards, counts):
    features = jax.vmap(model.features, (None, 0))(state.params, weights)

    def one_task(triangle, reward, count):
      rows = jnp.concatenate([features, reward[:, None]], axis=1)
      rows = jnp.sqrt(count)[:, None] * rows
      return jnp.linalg.qr(jnp.concatenate([triangle, rows]), mode="r")

    return jax.vmap(one_task, (0, 1, 1))(triangles, rewards, counts)

  # T of every task, from the prior's rows on.
  prior = jnp.sqrt(model.regularisation) * jnp.eye(size, dtype=jnp.float32)
  prior = jnp.pad(prior, (0, 1))
  triangles = jnp.tile(prior, (network.num_tasks, 1, 1))
  triangles = fold_slots(state.replay, add, triangles)
  # S and the coefficients.
  solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=False)
  corners = triangles[:, :size, :size]
  roots = jax.vmap(solve, (0, None))(corners, jnp.eye(size, dtype=jnp.float32))
  weights = jax.vmap(solve)(corners, triangles[:, :size, size]).T
  posterior = ridge.RidgeState(
    root=square_root.SquareRoot(roots, jnp.zeros_like(roots)),
    weights=weights,
    weights_low=jnp.zeros_like(weights),
  )
  num_seen = jnp.sum((state.replay.counts > 0).astype(jnp.float32), axis=0)
  return posterior, triangles[:, size, size] ** 2, num_seen


@ranges.checked
def neural_linear(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  candidates: str = "dirichlet",
  num_candidates: Count | None = None,
  retrain_every: Count = 50,
  noise: NonNegative = 0.2,
  exploration: NonNegative = 0.5,
  regularisation: Positive = 0.1,
  learning_rate: NonNegative = 3e-3,
  hidden: tuple[Count, ...] = (64, 32),
  num_steps: Count = 200,
  replay_capacity: Count = 4096,
) -> Bandit:
  """Neural-linear: maximises a posterior sample on the network's features.

  Its decisions' exploration_bonus is what the sample added to the mean.

  Args:
    num_experts: E.
    num_tasks: V.
    candidates: "dirichlet" (fresh uniform draws) or "tree" (leaves of a tree
      that grows where it is played), whose best is played, or "ascent", which
      climbs the score from fresh draws.
    num_candidates: how many; None for 20, 128 or 32.
    retrain_every: slots between two trainings of the network.
    noise: s, what the rewards' noise is taken to be before it was seen, in
      units of the rewards' spread.
    exploration: factor of the posterior's standard deviation; 1 is the paper's.
    regularisation: lambda, the noise's variance over the prior's.
    learning_rate: of the network's Adam.
    hidden: widths of the hidden layers; the last one's is P - 1.
    num_steps: gradient steps of one training.
    replay_capacity: the last slots that are trained on.

  Raises:
    ValueError: if a choice is not known or a number out of range.
  """
  learner = Learner(
    ADAM, num_experts, num_tasks, tuple(hidden), num_steps, replay_capacity
  )
  regression = ridge.per_task(
    num_features=learner.network.num_features,
    num_tasks=num_tasks,
    regularisation=regularisation,
  )
  model = _Model(
    learner,
    regression,
    make_rates(learning_rate),
    jnp.float32(exploration),
    jnp.float32(regularisation),
    jnp.float32(noise),
    jnp.int32(retrain_every),
  )
  return model_bandit(
    RewardModel(*(Partial(f, model) for f in (_init, _estimate, _update))),
    *named_candidates(candidates, num_experts, num_candidates),
  )
