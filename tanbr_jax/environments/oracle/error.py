"""Compares the oracle's table with a search made for each mix alone.

Letters: V tasks, E experts, M mixes, R starts, B windows of an ascent, n
windows of a task, S tokens of context.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import data, models
from tanbr_jax.environments.oracle.table import (
  OracleTable,
  choose,
  score_candidates,
  search,
)
from tanbr_jax.environments.rewards import Reward
from tanbr_jax.simplex.points import dirichlet_one


@dataclasses.dataclass(frozen=True)
class SearchError:
  """Rewards of the table and of a search, on mixes that the grid lacks.

  Attributes:
    mixes: [M, V] the mixes.
    table: [M] reward of the table's choice, on text that neither it nor
      the search has seen.
    search: [M] reward of a fresh search's best weights, on the same text.
  """

  mixes: np.ndarray
  table: np.ndarray
  search: np.ndarray

  @property
  def mean(self) -> float:
    """Mean of search - table; negative if the table's choices are better."""
    return float(np.mean(self.search - self.table))

  @property
  def standard_error(self) -> float:
    """Standard error of `mean` over the mixes; NaN with a single mix."""
    if self.table.size < 2:
      return float("nan")
    spread = np.std(self.search - self.table, ddof=1)
    return float(spread / np.sqrt(self.table.size))


def search_error(
  key: jax.Array,
  model: models.Model,
  params: models.Params,
  table: OracleTable,
  *,
  mixes: jax.Array,
  search_text: data.TaskText,
  score_windows: jax.Array,
  num_starts: int = 4,
  steps: int = 40,
  search_windows: int = 32,
  learning_rate: float = 0.3,
  reward: str | Reward = "accuracy",
) -> SearchError:
  """Compares the table with a longer search for each of a few mixes.

  The fresh search starts from uniform weights and from random ones. Its best
  end and the table's choice are scored on windows that neither has seen.

  Args:
    key: random key, consumed.
    model: a model with experts.
    params: its parameters.
    table: the table.
    mixes: [M, V] mixes that the table's grid does not hold.
    search_text: text, of no use to the table, that the search draws from.
    score_windows: [V, n, S + 1] windows for the comparison.
    num_starts: R, starts of each mix.
    steps: of each ascent.
    search_windows: B, windows that one ascent sees.
    learning_rate: of the ascent.
    reward: as for the table.

  Returns:
    A `SearchError`.
  """
  start_key, search_key = jax.random.split(key)
  shape = (mixes.shape[0], num_starts, table.weights.shape[1])
  # The first start of each mix is uniform.
  drawn = dirichlet_one(start_key, shape).at[:, 0].set(1 / shape[2])
  # A fresh search for each mix, and the choice of the table.
  of_search = search(
    search_key,
    model=model,
    params=params,
    text=search_text,
    mixes=mixes,
    starts=drawn,
    steps=steps,
    num_windows=search_windows,
    learning_rate=learning_rate,
    context=score_windows.shape[2] - 1,
  )
  of_table = jax.vmap(lambda mix: choose(table, mix)[0])(mixes)
  # Both are scored on the same windows, which neither has seen.
  both = jnp.concatenate([of_table, of_search])
  scored = score_candidates(
    model, params, both, windows=score_windows, reward=reward
  )
  by_task = np.asarray(scored.rewards).reshape(2, *mixes.shape)
  # A mix's reward is the mean of its tasks' rewards, weighted by the mix.
  values = np.sum(by_task * np.asarray(mixes)[None], axis=-1)
  return SearchError(np.asarray(mixes), values[0], values[1])
