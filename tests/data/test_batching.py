import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import data

# Byte i of a text is i, plus 100 for the second task: a window's first byte
# tells where it starts and in which task. Tasks differ in length.
SIZES, LENGTH = (9, 5), 4

evaluation_windows = jax.jit(data.evaluation_windows, static_argnums=(1, 2))
sample_task_windows = jax.jit(data.sample_task_windows, static_argnums=3)


@pytest.fixture(scope="module")
def arrays():
  return [
    np.arange(size, dtype=np.uint8) + np.uint8(100 * task)
    for task, size in enumerate(SIZES)
  ]


@pytest.fixture(scope="module")
def text(arrays):
  return data.from_arrays(arrays, min_length=LENGTH)


def test_arrays_are_padded_with_zeros(text, arrays):
  assert text.tokens.dtype == jnp.uint8 and text.lengths.dtype == jnp.int32
  np.testing.assert_array_equal(text.lengths, SIZES)
  np.testing.assert_array_equal(text.tokens[0], arrays[0])
  np.testing.assert_array_equal(text.tokens[1], [*arrays[1], 0, 0, 0, 0])


def test_windows_of_one_text_are_slices_at_every_start(arrays):
  sample = jax.jit(data.sample_windows, static_argnums=(2, 3))
  windows = np.asarray(sample(jax.random.key(0), arrays[0], 600, LENGTH))
  assert windows.shape == (600, LENGTH) and windows.dtype == np.uint8
  starts = windows[:, 0]
  for window, start in zip(windows, starts, strict=True):
    np.testing.assert_array_equal(window, arrays[0][start : start + LENGTH])
  counts = np.bincount(starts, minlength=6)
  # Starts 0..5 with 100 draws each; 50 is 5.5 standard deviations (9.1).
  assert counts.size == SIZES[0] - LENGTH + 1
  assert np.all(np.abs(counts - 100) < 50)


def test_windows_of_tasks_are_slices_at_every_start(text, arrays):
  tasks = jnp.asarray([0, 1] * 300, jnp.int32)
  windows = sample_task_windows(jax.random.key(1), text, tasks, LENGTH)
  windows = np.asarray(windows)
  assert windows.shape == (600, LENGTH) and windows.dtype == np.uint8
  starts = [set(), set()]
  for task, window in zip(np.asarray(tasks), windows, strict=True):
    start = int(window[0]) - 100 * int(task)
    starts[task].add(start)
    np.testing.assert_array_equal(window, arrays[task][start : start + LENGTH])
  assert starts == [set(range(6)), set(range(2))]


def test_windows_are_drawn_under_vmap_and_scan(text):
  tasks = jnp.asarray([0, 1, 1], jnp.int32)
  keys = jax.random.split(jax.random.key(2), 5)

  @jax.jit
  def sample(key):
    return data.sample_task_windows(key, text, tasks, LENGTH)

  batched = jax.jit(jax.vmap(sample))(keys)
  scanned = jax.jit(lambda keys: jax.lax.map(sample, keys))(keys)
  np.testing.assert_array_equal(batched, scanned)
  np.testing.assert_array_equal(batched[3], sample(keys[3]))


def test_a_text_as_long_as_the_window_gives_itself(arrays):
  sample = jax.jit(data.sample_windows, static_argnums=(2, 3))
  window = sample(jax.random.key(0), arrays[1], 2, 5)
  np.testing.assert_array_equal(window, [arrays[1]] * 2)


@pytest.mark.parametrize("num, length", [(1, 4), (2, 4), (2, 2), (3, 3)])
def test_evaluation_windows_are_evenly_spaced(text, arrays, num, length):
  windows = evaluation_windows(text, num, length)
  assert windows.shape == (2, num, length)
  for task, size in enumerate(SIZES):
    # num == 1 has no gaps: its window starts at the first byte.
    starts = [w * (size - length) // max(num - 1, 1) for w in range(num)]
    expected = [arrays[task][s : s + length] for s in starts]
    np.testing.assert_array_equal(windows[task], expected)
    if size >= num * length:
      assert np.all(np.diff(starts) >= length)


def test_starts_of_evaluation_windows_do_not_overflow():
  # 3,000 windows times 1e6 bytes are beyond int32. A byte is its place
  # modulo 251, the places of neighbours differ by about 333.
  size, num = 1_000_000, 3_000
  array = (np.arange(size) % 251).astype(np.uint8)
  windows = evaluation_windows(data.from_arrays([array]), num, 2)
  starts = np.arange(num, dtype=np.int64) * (size - 2) // (num - 1)
  np.testing.assert_array_equal(windows[0, :, 0], array[starts])
  np.testing.assert_array_equal(windows[0, :, 1], array[starts + 1])


def test_bad_text_and_lengths_are_refused(text, arrays):
  key = jax.random.key(0)
  with pytest.raises(ValueError, match=r"at least 6 tokens, got \[9, 5\]"):
    data.from_arrays(arrays, min_length=6)
  with pytest.raises(ValueError, match=r"got \['float64\[3\]'\]"):
    data.from_arrays([np.zeros(3)])
  with pytest.raises(ValueError, match=r"got \['uint8\[3\]', 'int32\[3\]'\]"):
    data.from_arrays([np.zeros(3, np.uint8), np.zeros(3, np.int32)])
  with pytest.raises(ValueError, match=r"got \[\]"):
    data.from_arrays([])
  with pytest.raises(ValueError, match=r"in \[1, 9\], got length=10"):
    data.sample_windows(key, jnp.asarray(arrays[0]), 2, 10)
  with pytest.raises(ValueError, match=r"in \[1, 9\], got length=0"):
    data.sample_task_windows(key, text, jnp.zeros(2, jnp.int32), 0)
  with pytest.raises(ValueError, match=r"in \[1, 9\], got length=10"):
    data.evaluation_windows(text, 2, 10)
  with pytest.raises(ValueError, match="got num_per_task=0"):
    data.evaluation_windows(text, 0, 2)


def test_windows_of_rows_are_rows():
  rows = [np.arange(n * 3).astype(np.int32) for n in (5, 2)]
  # The second task's last row is not whole.
  text = data.from_arrays([rows[0], np.append(rows[1], np.int32(6))], stride=3)
  tasks = np.arange(64, dtype=np.int32) % 2
  drawn = np.array(sample_task_windows(jax.random.key(0), text, tasks, 3))
  for task, count in enumerate((5, 2)):
    assert set(drawn[tasks == task, 0]) == {3 * row for row in range(count)}
  np.testing.assert_array_equal(drawn - drawn[:, :1], [[0, 1, 2]] * 64)
  # Three even ones of five, and of two with one again.
  cut = evaluation_windows(text, 3, 3)
  np.testing.assert_array_equal(cut[..., 0], [[0, 6, 12], [0, 0, 3]])


def test_marks_are_read():
  # A prompt of 5 and 0, then 7 and 0 are scored, then padding.
  windows = np.array([[~5, ~0, 7, 0, -1, -1]], np.int32)
  read = jax.jit(data.read_windows)(windows)
  np.testing.assert_array_equal(read.inputs, [[5, 0, 7, 0, 0]])
  np.testing.assert_array_equal(read.targets, [[0, 7, 0, 0, 0]])
  np.testing.assert_array_equal(read.is_scored, [[0, 1, 1, 0, 0]])
  np.testing.assert_array_equal(read.is_text, [[1, 1, 1, 0, 0]])
  # Bytes have no marks.
  read = data.read_windows(jnp.asarray([[200, 3]], jnp.uint8))
  assert (int(read.inputs[0, 0]), read.is_scored, read.is_text) == (
    200,
    None,
    None,
  )
