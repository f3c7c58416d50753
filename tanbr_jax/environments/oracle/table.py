"""The best merge weights of every mix, found before the stream begins.

The log-likelihood of a merged model is differentiable in the weights, hence
weights are found by gradient ascent for a grid of mixes, and from there, for a
reward that the log-likelihood does not tell, by a search without derivatives
(see `oracle.climb`). All weights that came
up are candidates; every candidate's reward on each task is measured once, on
text that the ascent did not see, and the oracle plays, for a mix psi, the
candidate g with the largest psi . h_g: the best of a finite set, in G V
operations, for any mix. `oracle.error` estimates what the table loses against
a search made for each mix alone. Letters: V tasks, E experts, G candidates, M
mixes, R starts, B windows of an ascent, n windows of a task, S tokens of
context.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import data, models
from tanbr_jax.environments.oracle.climb import climb
from tanbr_jax.environments.oracle.merged_reward import (
  task_rewards,
  window_rewards,
)
from tanbr_jax.environments.rewards import Reward, as_reward
from tanbr_jax.simplex.points import dirichlet_half
from tanbr_jax.simplex.search import best, maximise_on_simplex


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OracleTable:
  """Candidate weights and their rewards.

  Attributes:
    weights: [G, E] on the simplex.
    rewards: [G, V] float32, their mean rewards on each task's text.
  """

  weights: jax.Array
  rewards: jax.Array


def choose(
  table: OracleTable, task_mix: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The best candidate [E] for a mix [V], and psi . h of it [].

  A candidate whose reward is not finite is not chosen.
  """
  values = table.rewards @ task_mix
  chosen = best(values)
  return table.weights[chosen], values[chosen]


def grid_mixes(
  key: jax.Array, *, num_tasks: int, num_random: int = 8
) -> jax.Array:
  """Each task alone, all even pairs, all tasks alike, and random mixes.

  Args:
    key: random key, consumed.
    num_tasks: V.
    num_random: further mixes, from Dirichlet(1/2).

  Returns:
    [V + V (V - 1) / 2 + 1 + num_random, V]; the first V are one-hot.
  """
  alone = jnp.eye(num_tasks, dtype=jnp.float32)
  first, second = np.triu_indices(num_tasks, 1)
  pairs = (alone[first] + alone[second]) / 2
  drawn = dirichlet_half(key, (num_random, num_tasks))
  even = jnp.full((1, num_tasks), 1 / num_tasks, jnp.float32)
  return jnp.concatenate([alone, pairs, even, drawn])


def oracle_table(
  key: jax.Array,
  model: models.Model,
  params: models.Params,
  *,
  search_text: data.TaskText,
  select_windows: jax.Array,
  mixes: jax.Array | None = None,
  guesses: jax.Array | None = None,
  steps: int = 16,
  search_windows: int = 16,
  learning_rate: float = 0.3,
  climb_rounds: int = 0,
  reward: str | Reward = "accuracy",
) -> OracleTable:
  """Searches the best weights of a grid of mixes; see the module.

  The first ascents are for each task alone, from uniform weights and from the
  task's guess. The ascent of every mix then starts from the average, weighted
  by the mix, of where these ended. The guesses, the averages and all ends are
  candidates.

  Args:
    key: random key, consumed.
    model: a model with experts.
    params: its parameters.
    search_text: text of V tasks that each mix's ascent draws its windows from.
    select_windows: [V, n, S + 1] integer tokens, windows of other text, on
      which the candidates are measured.
    mixes: [M, V] the grid; None for `grid_mixes` without random ones.
    guesses: [V, E] weights that may suit each task, for instance the table of
      the model's training; None for uniform ones only.
    steps: of each ascent.
    search_windows: B, windows that one ascent sees, shared out by the mix.
      The E - 1 free weights overfit little: on B S = 1,024 tokens they lose
      about (E - 1) / (2 B S) = .003 nats at E = 8.
    learning_rate: of Adam on the logits of the weights.
    climb_rounds: of the search without derivatives, 0 for none.
    reward: what candidates are selected by, see `environments.rewards`.

  Returns:
    An `OracleTable`.

  Raises:
    ValueError: if the reward is unknown or the shapes do not fit.
  """
  reward = as_reward(reward)
  num_tasks, num_experts = select_windows.shape[0], model.config.num_experts
  grid_key, alone_key, mix_key = jax.random.split(key, 3)
  # The grid of mixes whose best weights are looked for.
  if mixes is None:
    mixes = grid_mixes(grid_key, num_tasks=num_tasks, num_random=0)
  _check_shapes(mixes, search_text, num_tasks)
  # All ascents are alike but for their mixes and starts.
  ascend = functools.partial(
    search,
    model=model,
    params=params,
    text=search_text,
    steps=steps,
    num_windows=search_windows,
    learning_rate=learning_rate,
    context=select_windows.shape[2] - 1,
  )
  # Each task alone, from uniform weights and from its guess.
  uniform = jnp.full((num_tasks, num_experts), 1 / num_experts, jnp.float32)
  guesses = uniform if guesses is None else jnp.asarray(guesses, jnp.float32)
  starts = jnp.stack([uniform, guesses], axis=1)
  alone = ascend(
    alone_key, mixes=jnp.eye(num_tasks, dtype=jnp.float32), starts=starts
  )
  # Every mix, from the average of the tasks' best weights.
  averages = jnp.matmul(mixes, alone, precision="float32")
  ends = ascend(mix_key, mixes=mixes, starts=averages[:, None])
  # All of these are candidates; text that no ascent saw ranks them.
  candidates = jnp.concatenate([uniform[:1], guesses, alone, averages, ends])
  if climb_rounds:
    climbed = climb(
      jax.random.fold_in(key, 4),  # splitting took fewer
      params,
      candidates,
      mixes,
      data.evaluation_windows(search_text, *select_windows.shape[1:]),
      reward,
      model=model,
      rounds=climb_rounds,
    )
    candidates = jnp.concatenate([candidates, climbed])
  return score_candidates(
    model, params, candidates, windows=select_windows, reward=reward
  )


def score_candidates(
  model: models.Model,
  params: models.Params,
  weights: jax.Array,
  *,
  windows: jax.Array,
  reward: str | Reward = "accuracy",
) -> OracleTable:
  """Measures weights [G, E] on windows [V, n, S + 1] of every task."""
  rewards = _task_rewards(
    params, weights, windows, as_reward(reward), model=model
  )
  return OracleTable(weights, rewards)


@functools.partial(jax.jit, static_argnames="model")
def _task_rewards(
  params: models.Params,
  weights: jax.Array,
  windows: jax.Array,
  reward: Partial,
  *,
  model: models.Model,
) -> jax.Array:
  return jax.lax.map(
    lambda x: task_rewards(model, params, windows, x, reward=reward), weights
  )


@functools.partial(
  jax.jit,
  static_argnames=("model", "steps", "num_windows", "learning_rate", "context"),
)
def search(
  key: jax.Array,
  *,
  model: models.Model,
  params: models.Params,
  text: data.TaskText,
  mixes: jax.Array,
  starts: jax.Array,
  steps: int,
  num_windows: int,
  learning_rate: float,
  context: int,
) -> jax.Array:
  """Gradient ascent for each mix, on windows that the mix shares out.

  Args:
    key: random key, consumed.
    model: a model with experts.
    params: its parameters.
    text: text of V tasks that the windows are drawn from.
    mixes: [M, V].
    starts: [M, R, E].
    steps: of each ascent.
    num_windows: B, windows that an ascent sees.
    learning_rate: of Adam on the logits of the weights.
    context: S.

  Returns:
    [M, E], the best weights of each mix by the log-likelihood.
  """
  # Accuracy, for one, has no gradient.
  log_likelihood = as_reward("log_likelihood")
  ranks = (jnp.arange(num_windows, dtype=jnp.float32) + 0.5) / num_windows

  def one(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    key, mix, starts = inputs
    # Equally spaced ranks share the windows out by the mix, without luck.
    passed = ranks[:, None] >= jnp.cumsum(mix)[None, :-1]
    tasks = jnp.sum(passed, axis=1, dtype=jnp.int32)
    windows = data.sample_task_windows(key, text, tasks, context + 1)

    def objective(x: jax.Array) -> jax.Array:
      return jnp.mean(
        window_rewards(
          model, params, windows, merge_weights=x, reward=log_likelihood
        )
      )

    weights, _ = maximise_on_simplex(
      objective, starts, steps=steps, learning_rate=learning_rate
    )
    return weights

  keys = jax.random.split(key, mixes.shape[0])
  return jax.lax.map(one, (keys, mixes, starts))


def _check_shapes(
  mixes: jax.Array, search_text: data.TaskText, num_tasks: int
) -> None:
  shapes = (mixes.shape[-1], search_text.lengths.shape[0])
  if mixes.ndim != 2 or shapes != (num_tasks, num_tasks):
    raise ValueError(
      "mixes, search_text and select_windows must have the same tasks, got "
      f"mixes {list(mixes.shape)}, {shapes[1]} and {num_tasks} tasks"
    )
