import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import data, models
from tanbr_jax.environments import rewards
from tanbr_jax.environments.oracle import climb
from tanbr_jax.environments.oracle import error as oracle_error
from tanbr_jax.environments.oracle import table as oracle
from tanbr_jax.environments.oracle.text_parts import split_text

V = 3
E = 3
# Equal shapes everywhere, so that the search compiles as seldom as possible.
STEPS = 40
WINDOWS = 24
choose = jax.jit(oracle.choose)


@pytest.fixture(scope="module")
def windows(tiny):
  return data.evaluation_windows(tiny.text, 6, 7)


@pytest.fixture(scope="module")
def table(tiny, windows):
  return oracle.oracle_table(
    jax.random.key(0),
    tiny.model,
    tiny.params,
    search_text=tiny.text,
    select_windows=windows,
    guesses=jnp.eye(E),
    steps=STEPS,
    search_windows=WINDOWS,
    reward="log_likelihood",
  )


def test_grid_of_mixes():
  mixes = np.asarray(oracle.grid_mixes(jax.random.key(0), num_tasks=4))
  assert mixes.shape == (4 + 6 + 1 + 8, 4)
  np.testing.assert_allclose(mixes.sum(1), 1.0, atol=1e-6)
  assert ((mixes == 0.5).sum(1) == 2).sum() == 6
  assert len(np.unique(mixes.round(5), axis=0)) == 19


def test_choice_is_the_best_candidate():
  rng = np.random.default_rng(0)
  weights, rewards = rng.dirichlet(np.ones(4), 9), rng.normal(size=(9, V))
  table = oracle.OracleTable(jnp.float32(weights), jnp.float32(rewards))
  for mix in rng.dirichlet(np.ones(V), 5):
    found, value = choose(table, jnp.float32(mix))
    best = (rewards @ mix).argmax()
    np.testing.assert_allclose(found, weights[best], atol=1e-6)
    assert float(value) == pytest.approx(rewards[best] @ mix, abs=1e-5)


def test_table_measures_its_candidates(tiny, windows, table):
  @jax.jit
  def loss(weights, task_windows):
    dense, dense_params = models.merge(tiny.model, tiny.params, weights)
    return models.score(dense, dense_params, task_windows).loss

  for index in (0, 2, -1):
    for task in range(V):
      mean = float(loss(table.weights[index], windows[task]).mean())
      assert float(table.rewards[index, task]) == pytest.approx(-mean, abs=1e-4)


def test_table_is_near_the_best_of_a_grid_of_weights(tiny, windows, table):
  steps = 12
  points = np.array(
    [
      (i, j, steps - i - j)
      for i in range(steps + 1)
      for j in range(steps + 1 - i)
    ]
  )
  everywhere = oracle.score_candidates(
    tiny.model,
    tiny.params,
    jnp.float32(points / steps),
    windows=windows,
    reward="log_likelihood",
  )
  mixes = oracle.grid_mixes(jax.random.key(5), num_tasks=V, num_random=4)
  largest = np.asarray(everywhere.rewards @ mixes.T).max(0)
  chosen = np.array([choose(table, mix)[1] for mix in mixes])
  worst = np.asarray(everywhere.rewards @ mixes.T).min(0)
  # The ascent sees 24 other windows of the same text, and its candidates are
  # those of seven mixes: a tenth of the landscape's range is its error.
  assert (largest - chosen < 0.1 * (largest - worst)).all()


def test_search_climbs_its_own_objective(tiny):
  """One task whose windows are all the same: the objective is known."""
  single = (
    jnp.arange(7, dtype=jnp.uint8)[None]
    + jnp.arange(V, dtype=jnp.uint8)[:, None]
  )
  one = data.TaskText(
    tiny.text.tokens.at[:, :7].set(single), jnp.full(V, 7, jnp.int32)
  )
  starts = jnp.array([[0.4, 0.3, 0.3], [0.0, 0.0, 1.0]])
  best = oracle.search(
    jax.random.key(0),
    model=tiny.model,
    params=tiny.params,
    text=one,
    mixes=jnp.eye(V),
    starts=jnp.tile(starts[None], (V, 1, 1)),
    steps=STEPS,
    num_windows=WINDOWS,
    learning_rate=0.3,
    context=6,
  )
  points = jnp.concatenate([best[1:2], starts])
  found = oracle.score_candidates(
    tiny.model,
    tiny.params,
    points,
    windows=jnp.tile(single[:, None], (1, 6, 1)),
    reward="log_likelihood",
  )
  # A search from a vertex starts 1e-3 inside of it.
  assert found.rewards[0, 1] > found.rewards[1:, 1].max() - 1e-2
  assert found.rewards[0, 1] > found.rewards[1, 1] + 0.1


def test_climbing_a_reward_without_a_derivative(tiny, windows):
  """Against all weights of a grid of sixths, for every task and their mean."""
  points = np.array([(i, j, 6 - i - j) for i in range(7) for j in range(7 - i)])
  reward = rewards.predicts([3, 12, 19, *range(64, 128)])
  found, grid = (
    np.float64(
      oracle.score_candidates(
        tiny.model, tiny.params, weights, windows=windows, reward=reward
      ).rewards
    )
    for weights in (
      climb.climb(
        jax.random.key(0),
        tiny.params,
        jnp.full((1, E), 1 / E),
        jnp.concatenate([jnp.eye(V), jnp.full((1, V), 1 / V)]),
        windows,
        reward,
        model=tiny.model,
        rounds=48,
      ),
      jnp.float32(points / 6),
    )
  )
  mixes = np.concatenate([np.eye(V), np.full((1, V), 1 / V)])
  values, everywhere = (found * mixes).sum(1), grid @ mixes.T
  best, worst = everywhere.max(0), everywhere.min(0)
  assert (best - worst > 0.1).all()
  # Seven times as many points as the grid has, but the steps of a reward of 36
  # predictions are rugged: a climb may end on one that is some lower.
  assert (best - values < 0.2 * (best - worst)).all()


def test_error_is_small_for_the_table_and_large_for_a_bad_one(
  tiny, windows, table
):
  mixes = jnp.array([[0.7, 0.3, 0.0], [0.2, 0.2, 0.6], [0.1, 0.4, 0.5]])
  worst = oracle.OracleTable(table.weights, -table.rewards)
  options = dict(
    mixes=mixes,
    search_text=tiny.text,
    score_windows=windows,
    num_starts=2,
    steps=STEPS,
    search_windows=WINDOWS,
    reward="log_likelihood",
  )
  args = (jax.random.key(7), tiny.model, tiny.params)
  good = oracle_error.search_error(*args, table, **options)
  bad = oracle_error.search_error(*args, worst, **options)
  np.testing.assert_array_equal(good.search, bad.search)
  for row, mix in enumerate(mixes):
    assert good.table[row] == pytest.approx(
      float(choose(table, mix)[1]), abs=1e-5
    )
  assert bad.mean > 0.01 and abs(good.mean) < 0.2 * bad.mean


def test_error_over_mixes_by_hand():
  error = oracle_error.SearchError(
    mixes=np.eye(2), table=np.array([0.1, 0.2]), search=np.array([0.2, 0.5])
  )
  assert error.mean == pytest.approx(0.2)
  # Deviations of .1 from the mean: sqrt(.02 / 1) / sqrt(2) = .1.
  assert error.standard_error == pytest.approx(0.1)


def test_parts_are_disjoint_and_whole():
  arrays = [np.arange(n) % 251 for n in (100, 7)]
  arrays = [array.astype(np.uint8) for array in arrays]
  parts = split_text(arrays, 3, block=8)
  for task, text in enumerate(arrays):
    joined = np.concatenate([part[task] for part in parts])
    assert sorted(joined) == sorted(text)
    assert all(part[task].size > 0 for part in parts)
  np.testing.assert_array_equal(
    parts[1][0][:16], np.r_[np.arange(8, 16), np.arange(32, 40)]
  )


def test_parts_are_of_whole_rows():
  rows = [np.repeat(np.arange(n), 5) for n in (9, 2)]
  parts = split_text(rows, 3, block=12, stride=5)
  # Two rows of five are the most in a block of twelve.
  np.testing.assert_array_equal(parts[0][0], np.repeat([0, 1, 6, 7], 5))
  np.testing.assert_array_equal(parts[2][0], np.repeat([4, 5], 5))
  np.testing.assert_array_equal(parts[1][1], np.full(5, 1))
  assert parts[2][1].size == 0


def test_tasks_must_agree(tiny, windows):
  with pytest.raises(ValueError, match="mixes .1, 2., 3 and 3 tasks"):
    oracle.oracle_table(
      jax.random.key(0),
      tiny.model,
      tiny.params,
      search_text=tiny.text,
      select_windows=windows,
      mixes=jnp.ones((1, 2)) / 2,
    )
