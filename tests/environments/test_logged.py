import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.environments import logged

# Rows 0 and 2 are one arm, with task 0 seen 1 + 3 times and task 1 twice.
WEIGHTS = np.array([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
REWARDS = np.array([[0.0, 2.0], [3.0, 1.0], [4.0, np.nan], [1.0, 5.0]])
COUNTS = np.array([[1, 2], [1, 1], [3, 0], [2, 1]])
MIX = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
# Means of the arms by hand: (0 + 3 * 4) / 4 = 3 and 2; 3 and 1; 1 and 5.
ARMS = {(0.5, 0.5): (3.0, 2.0), (1.0, 0.0): (3.0, 1.0), (0.0, 1.0): (1.0, 5.0)}
MEANS = np.array([[3.0, 1.0], [3.0, 2.0], [1.0, 5.0]])  # of WEIGHTS[1:]


def _log(**changes):
  arguments = {
    "weights": WEIGHTS,
    "mix": MIX,
    "rewards": REWARDS,
    "counts": COUNTS,
  }
  return arguments | changes


@jax.jit
def _play(environment, played):
  """Plays weights [T, E] one after the other."""

  def slot(state, step):
    key, weights = step
    context = environment.context(state)
    feedback, outcome, state = environment.step(key, state, weights)
    return state, (context, feedback, outcome)

  keys = jax.random.split(jax.random.key(0), played.shape[0])
  state = environment.init(keys[0])
  return jax.lax.scan(slot, state, (keys, played))[1]


def test_logged_weights_are_answered_by_their_rows():
  environment = logged.logged(**_log())
  played = jnp.float32(np.tile(WEIGHTS, (30, 1)))
  context, feedback, outcome = _play(environment, played)
  mixes = MIX[np.arange(120) % 3]
  np.testing.assert_array_equal(context.task_mix, mixes)
  means = np.array([ARMS[tuple(row)] for row in WEIGHTS])[np.arange(120) % 4]
  np.testing.assert_allclose(outcome.expected_reward, (means * mixes).sum(1))
  best = (np.array(list(ARMS.values())) @ mixes.T).max(0)
  np.testing.assert_allclose(outcome.optimal_reward, best)
  reward, count = map(np.asarray, feedback[:2])
  known = np.where(COUNTS > 0, REWARDS, 0.0)
  for row in (1, 3):
    np.testing.assert_array_equal(reward[row::4], np.tile(known[row], (30, 1)))
    np.testing.assert_array_equal(count[row::4], np.tile(COUNTS[row], (30, 1)))
  # The arm of two rows answers with either, about as often.
  is_first = (reward[0::2] == 0.0)[::2, 0]
  chosen = np.where(is_first[:, None], known[0], known[2])
  np.testing.assert_array_equal(reward[0::4], chosen)
  assert 5 < is_first.sum() < 25
  shares = count / count.sum(1, keepdims=True)
  np.testing.assert_allclose(
    outcome.realised_reward, (shares * reward).sum(1), rtol=1e-6
  )


GRADIENTS = np.array([[1, -1], [2, -2], [np.nan] * 2, [4, -4]])
USAGE = np.array([[0.5, 0.5], [np.nan] * 2, [0.25, 0.75], [1.0, 0.0]])


def test_signals_are_those_of_the_row_that_answers(tmp_path):
  told = {
    "gradients": GRADIENTS,
    "gradient_counts": np.array([3, 1, 0, 2]),
    "usage": USAGE,
  }
  played = jnp.float32(np.tile(WEIGHTS, (30, 1)))
  _, feedback, _ = _play(logged.logged(**_log(**told)), played)
  # Rewards tell which of rows 0 and 2, of the same weights, was drawn.
  is_first = np.asarray(feedback.task_reward)[:, 0] == 0.0
  rows = np.where(np.arange(120) % 2, np.arange(120) % 4, 2 * ~is_first)
  assert {0, 1, 2, 3} == set(rows)
  np.testing.assert_array_equal(
    feedback.gradient, np.nan_to_num(GRADIENTS)[rows]
  )
  np.testing.assert_array_equal(
    feedback.gradient_count, np.array([3, 1, 0, 2])[rows]
  )
  np.testing.assert_array_equal(feedback.usage, np.nan_to_num(USAGE)[rows])
  # The same from a file; a gradient's count is 1 where none is told.
  path = tmp_path / "log.npz"
  logged.save_npz(path, *_log().values(), gradients=GRADIENTS)
  far = jnp.float32([[0.9, 0.1]])
  environment = logged.from_npz(path, max_distance=0.01)
  _, feedback, _ = _play(environment, jnp.concatenate([played[1:2], far]))
  np.testing.assert_array_equal(feedback.gradient, [[2, -2], [0, 0]])
  np.testing.assert_array_equal(feedback.gradient_count, [1, 0])
  assert feedback.usage is None


@pytest.mark.parametrize(
  ("told", "message"),
  [
    ({"gradients": GRADIENTS[:3]}, r"\[4, 2\], got \[3, 2\]"),
    ({"gradients": GRADIENTS * [1, np.inf]}, "got -inf in row 0, expert 1"),
    ({"gradients": GRADIENTS * [1, np.nan]}, "got nan in row 0, expert 1"),
    (
      {"gradients": GRADIENTS, "gradient_counts": np.zeros(4)},
      r"shape \[4\], least 0",
    ),
    ({"gradient_counts": np.ones(4)}, "gradients=None"),
    ({"usage": USAGE * [[1], [1], [2], [1]]}, "usage .* sum 2 at row 2"),
  ],
)
def test_signals_that_do_not_fit_are_one_line_errors(told, message, tmp_path):
  path = tmp_path / "log.npz"
  with pytest.raises(ValueError, match=message) as error:
    logged.save_npz(path, *_log().values(), **told)
  assert "\n" not in str(error.value) and not path.exists()


def test_weights_between_arms_take_the_nearest_or_none():
  played = jnp.float32([[0.9, 0.1], [0.05, 0.95], [0.999, 0.001]])
  _, feedback, outcome = _play(logged.logged(**_log()), played)
  np.testing.assert_allclose(outcome.expected_reward, [3.0, 3.0, 1.0])
  np.testing.assert_array_equal(feedback.task_count[:2], COUNTS[[1, 3]])
  strict = logged.logged(**_log(), max_distance=0.01)
  _, feedback, outcome = _play(strict, played)
  np.testing.assert_array_equal(
    feedback.task_count, [[0, 0], [0, 0], COUNTS[1]]
  )
  assert (feedback.task_reward[:2] == 0).all()
  assert (outcome.realised_reward[:2] == 0).all()
  np.testing.assert_allclose(outcome.expected_reward, [3.0, 3.0, 1.0])
  exactly = logged.logged(**_log(), max_distance=0.0)
  _, feedback, _ = _play(exactly, jnp.float32(WEIGHTS[:3]))
  assert (feedback.task_count.sum(1) > 0).all()


def test_an_unseen_task_of_an_arm_has_the_mean_over_the_log():
  counts = np.array([[1, 2], [1, 0], [3, 0], [2, 1]])
  environment = logged.logged(**_log(counts=counts))
  played = jnp.float32([[1.0, 0.0]] * 3)
  _, feedback, outcome = _play(environment, played)
  # Task 1: (2 * 2 + 5) / 3 = 3.
  np.testing.assert_allclose(outcome.expected_reward, [3.0, 3.0, 3.0])
  np.testing.assert_array_equal(feedback.task_count, [[1, 0]] * 3)


def test_without_counts_the_realised_reward_is_that_of_the_mix(tmp_path):
  # Noise-free: one row an arm, so what is realised is what is expected.
  log = {"weights": WEIGHTS[1:], "mix": MIX, "rewards": MEANS}
  played = jnp.float32(np.tile(log["weights"], (3, 1)))
  path = tmp_path / "log.npz"
  logged.save_npz(path, **log)
  for environment in (logged.logged(**log), logged.from_npz(path)):
    context, feedback, outcome = _play(environment, played)
    rewards = np.tile(log["rewards"], (3, 1))
    mixed = (rewards * np.tile(MIX, (3, 1))).sum(1)
    np.testing.assert_allclose(outcome.realised_reward, mixed)
    np.testing.assert_allclose(outcome.expected_reward, mixed)
    np.testing.assert_array_equal(feedback.task_count, np.ones((9, 2)))
  # Weights that no arm answers have neither feedback nor a realised reward.
  strict = logged.logged(**log, max_distance=0.01)
  _, feedback, outcome = _play(strict, jnp.float32([[0.7, 0.3]]))
  assert not feedback.task_count.any() and outcome.realised_reward[0] == 0


def test_files_come_back(tmp_path):
  path = tmp_path / "log.npz"
  logged.save_npz(path, **_log())
  played = jnp.float32(WEIGHTS)
  jax.tree.map(
    np.testing.assert_array_equal,
    _play(logged.from_npz(path), played),
    _play(logged.logged(**_log()), played),
  )
  np.savez(path, weights=WEIGHTS, rewards=REWARDS)
  with pytest.raises(ValueError, match=r"'mix'.*got \['weights', 'rewards'\]"):
    logged.from_npz(path)
  with pytest.raises(ValueError, match="row 2, task 1"):
    logged.save_npz(tmp_path / "bad.npz", **_log(counts=None))
  assert not (tmp_path / "bad.npz").exists()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"weights": WEIGHTS[:3]}, r"got \[\[3, 2\], \[3, 2\], \[4, 2\]"),
    ({"weights": WEIGHTS[0]}, r"got \[\[2\]"),
    ({"mix": MIX[:, :1]}, r"\[3, 1\]"),
    ({"mix": np.zeros((0, 2))}, r"\[0, 2\]"),
    ({"counts": COUNTS[:, :1]}, r"\[4, 1\]"),
    ({"weights": WEIGHTS * 1.1}, "weights must lie on the simplex.*row 0"),
    ({"mix": MIX - [[0.1, -0.1]]}, "mix must lie on the simplex.*row 2"),
    ({"mix": MIX * np.nan}, "mix must lie on the simplex.*row 0"),
    ({"counts": -COUNTS}, "got a count of -1"),
    ({"counts": COUNTS * 0.5}, "got a count of 0.5"),
    ({"counts": COUNTS * [[1, 0]]}, "none of task 1"),
    ({"rewards": np.full((4, 2), -np.inf)}, "got -inf in row 0, task 0"),
    ({"max_distance": -1.0}, "max_distance=-1.0"),
    ({"max_distance": float("nan")}, "max_distance=nan"),
  ],
)
def test_bad_arguments_are_one_line_errors(changes, message):
  with (
    np.errstate(invalid="ignore"),
    pytest.raises(ValueError, match=message) as error,
  ):
    logged.logged(**_log(**changes))
  assert "\n" not in str(error.value)
