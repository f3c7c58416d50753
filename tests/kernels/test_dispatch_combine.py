import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import kernels

# Under jit, as otherwise every operation inside is compiled by itself.
_sort = jax.jit(kernels.sort_by_group, static_argnums=1)
_combine = jax.jit(kernels.combine)


def _draw_ids():
  """[11, 5] of three groups; -1 and 3 are skipped, and most ids repeat."""
  return np.random.default_rng(0).integers(-1, 4, (11, 5)).astype(np.int32)


@pytest.fixture(scope="module")
def problem():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(11, 4)).astype(np.float32)
  gates = rng.uniform(size=(11, 5)).astype(np.float32)
  rows = rng.normal(size=(55, 4)).astype(np.float32)
  return x, gates, rows, _sort(_draw_ids(), 3)


def test_dispatch_copies_tokens_and_adds_their_gradients(problem):
  x, _, rows, permutation = problem

  @jax.jit
  def run(x, grad):
    out, pullback = jax.vjp(lambda x: kernels.dispatch(x, permutation), x)
    return out, *pullback(grad)

  num_rows = int(permutation.group_sizes.sum())
  assert 0 < num_rows < 55
  source = np.array(permutation.source[:num_rows])
  # The gradient at the rows past the groups must not matter.
  grad = rows.copy()
  grad[num_rows:] = np.nan
  expected = np.zeros(x.shape)
  np.add.at(expected, source, rows[:num_rows].astype(np.float64))
  out, x_grad = run(x, grad)
  np.testing.assert_array_equal(out[:num_rows], x[source])
  # Sums of at most five float32 values of about 1.
  np.testing.assert_allclose(x_grad, expected, atol=1e-6)


def test_a_kernel_that_copies_trains(problem, hopper):
  x, _, rows, permutation = problem

  @jax.jit
  def run(x, grad):
    out, pullback = jax.vjp(lambda x: kernels.dispatch(x, permutation), x)
    return out, *pullback(grad)

  out, x_grad = run(x, rows)
  assert set(hopper) == {"dispatch"}
  num_rows = int(permutation.group_sizes.sum())
  np.testing.assert_array_equal(
    out[:num_rows], x[permutation.source[:num_rows]]
  )
  assert np.isnan(out[num_rows:]).all()
  grad = np.zeros(x.shape)
  np.add.at(grad, permutation.source[:num_rows], rows[:num_rows])
  np.testing.assert_allclose(x_grad, grad, atol=1e-6)


def _combine_by_loop(rows, place, gates):
  out = np.zeros((place.shape[0], rows.shape[1]))
  for token, k in np.argwhere(place < place.size):
    out[token] += np.float64(gates[token, k]) * rows[place[token, k]]
  return out


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_combine_equals_a_loop(problem, dtype):
  _, gates, rows, permutation = problem
  rows, place = np.array(jnp.array(rows, dtype)), np.array(permutation.place)
  rows[int(permutation.group_sizes.sum()) :] = np.nan
  out = _combine(jnp.array(rows), permutation, jnp.array(gates))
  assert out.dtype == dtype
  # Float32 sums of five; bfloat16 results are rounded once, by 2**-9.
  rounding = {jnp.float32: 0.0, jnp.bfloat16: 2**-8}[dtype]
  np.testing.assert_allclose(
    np.array(out, np.float64),
    _combine_by_loop(rows.astype(np.float64), place, gates),
    atol=2e-6,
    rtol=rounding,
  )


def test_combine_has_the_gradients_of_the_loop(problem):
  x, gates, rows, permutation = problem
  place = np.array(permutation.place)
  num_rows = int(permutation.group_sizes.sum())
  rows = rows.copy()
  rows[num_rows:] = np.nan

  @jax.jit
  def run(rows, gates, grad):
    _, pullback = jax.vjp(
      lambda rows, gates: kernels.combine(rows, permutation, gates), rows, gates
    )
    return pullback(grad)

  rows_grad, gates_grad = run(rows, gates, x)
  rows_expected, gates_expected = np.zeros(rows.shape), np.zeros(gates.shape)
  for token, k in np.argwhere(place < place.size):
    row = place[token, k]
    rows_expected[row] = gates[token, k] * x[token]
    gates_expected[token, k] = np.dot(rows[row].astype(np.float64), x[token])
  np.testing.assert_allclose(rows_grad, rows_expected, rtol=1e-6)
  np.testing.assert_allclose(gates_grad, gates_expected, atol=2e-6)


def test_combine_adds_in_float32():
  # In bfloat16 256 + 1 is 256, so that the ones would be lost one by one.
  # With 17 pairs they are added in two passes.
  permutation = _sort(jnp.arange(17, dtype=jnp.int32)[None], 17)
  rows = jnp.ones((17, 2)).at[0].set(256.0).astype(jnp.bfloat16)
  out = _combine(rows, permutation, jnp.ones((1, 17)))
  np.testing.assert_array_equal(out.astype(jnp.float32), [[272.0, 272.0]])


def test_vmap_over_batches_of_tokens(problem):
  x, gates, _, _ = problem
  ids = _draw_ids()
  ids, x = np.stack([ids, ids[::-1]]), np.stack([x, -x])

  @jax.jit
  @jax.vmap
  def there_and_back(ids, x):
    permutation = kernels.sort_by_group(ids, 3)
    return kernels.combine(
      kernels.dispatch(x, permutation), permutation, jnp.array(gates)
    )

  # Each token meets itself again, times the gates of the pairs not skipped.
  is_in = (ids >= 0) & (ids < 3)
  expected = x * (gates * is_in).sum(-1, keepdims=True)
  np.testing.assert_allclose(there_and_back(ids, x), expected, atol=2e-6)


def test_all_pairs_skipped_and_no_tokens():
  skipped = _sort(jnp.full((3, 2), -1, jnp.int32), 4)
  rows = jnp.full((6, 5), jnp.nan)
  out = _combine(rows, skipped, jnp.full((3, 2), jnp.nan))
  np.testing.assert_array_equal(out, np.zeros((3, 5)))
  nothing = _sort(jnp.zeros((0, 2), jnp.int32), 4)
  rows = kernels.dispatch(jnp.ones((0, 5)), nothing)
  assert rows.shape == (0, 5)
  assert _combine(rows, nothing, jnp.ones((0, 2))).shape == (0, 5)


def test_refuses_what_it_cannot_do(problem):
  x, gates, rows, permutation = (jax.tree.map(jnp.array, p) for p in problem)
  with pytest.raises(ValueError, match=r"x \(10, 4\), place \(11, 5\)"):
    kernels.dispatch(x[1:], permutation)
  with pytest.raises(ValueError, match=r"rows \(54, 4\)"):
    kernels.combine(rows[1:], permutation, gates)
  with pytest.raises(ValueError, match=r"gates \(11, 4\)"):
    kernels.combine(rows, permutation, gates[:, 1:])
  with pytest.raises(ValueError, match="'mosaic_gpu' cannot run: .* a cpu"):
    kernels.dispatch(x, permutation, implementation="mosaic_gpu")
  with pytest.raises(ValueError, match="one of .*'xla'.*, got .*'triton'"):
    kernels.combine(rows, permutation, gates, implementation="triton")
