import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import kernels

# Under jit, as otherwise every operation inside is compiled by itself.
_sort = jax.jit(kernels.sort_by_group, static_argnums=1)

# name -> (tokens, experts per token, groups)
SIZES = {
  "one pair": (1, 1, 1),
  "one token": (1, 3, 4),
  "repeated ids": (11, 5, 3),
  "empty groups": (9, 2, 40),
  "blocks of tokens": (300, 2, 7),
  "blocks of blocks": (128 * 128 + 5, 1, 3),
}


def _draw_ids(name):
  num_tokens, num_selected, num_groups = SIZES[name]
  rng = np.random.default_rng(0)
  # Ids -1 and num_groups are skipped.
  ids = rng.integers(-1, num_groups + 1, size=(num_tokens, num_selected))
  return ids.astype(np.int32), num_groups


def _sorted_by_loop(ids, num_groups):
  """Token of each sorted row, the place of each pair, rows of each group."""
  place = np.full(ids.shape, ids.size)
  source, sizes = [], np.zeros(num_groups, int)
  for group in range(num_groups):
    for token, k in np.argwhere(ids == group):
      place[token, k] = len(source)
      source.append(token)
      sizes[group] += 1
  return place, source, sizes


@pytest.mark.parametrize("name", SIZES)
def test_places_equal_a_loop(name):
  ids, num_groups = _draw_ids(name)
  place, source, sizes = _sorted_by_loop(ids, num_groups)
  got = _sort(jnp.array(ids), num_groups)
  np.testing.assert_array_equal(got.place, place)
  np.testing.assert_array_equal(got.source[: len(source)], source)
  np.testing.assert_array_equal(got.group_sizes, sizes)
  assert {x.dtype for x in got} == {np.dtype(np.int32)}
  assert got.source.shape == (ids.size,)


def test_all_pairs_skipped_and_no_tokens():
  skipped = _sort(jnp.full((3, 2), -1, jnp.int32), 4)
  np.testing.assert_array_equal(skipped.place, np.full((3, 2), 6))
  np.testing.assert_array_equal(skipped.group_sizes, np.zeros(4))
  nothing = _sort(jnp.zeros((0, 2), jnp.int32), 4)
  assert nothing.place.shape == (0, 2)
  np.testing.assert_array_equal(nothing.group_sizes, np.zeros(4))


@pytest.mark.parametrize("name", ["one token", "repeated ids", "empty groups"])
def test_blocks_that_a_kernel_ranks_are_put_together(name, hopper):
  ids, num_groups = _draw_ids(name)
  place, _, sizes = _sorted_by_loop(ids, num_groups)
  got = jax.jit(lambda ids: kernels.sort_by_group(ids, num_groups))(ids)
  assert hopper == ["block_ranks"]
  np.testing.assert_array_equal(got.place, place)
  np.testing.assert_array_equal(got.group_sizes, sizes)


@pytest.mark.parametrize("name", ["one token", "repeated ids"])
def test_vmap_over_batches_of_tokens(name):
  ids, num_groups = _draw_ids(name)
  ids = np.stack([ids, ids[::-1]])
  got = jax.vmap(_sort, (0, None))(ids, num_groups)
  for i in range(2):
    place, _, sizes = _sorted_by_loop(ids[i], num_groups)
    np.testing.assert_array_equal(got.place[i], place)
    np.testing.assert_array_equal(got.group_sizes[i], sizes)


def test_refuses_what_it_cannot_do():
  ids = jnp.zeros((11, 4), jnp.int32)
  with pytest.raises(ValueError, match=r"float32\(11, 4\)"):
    kernels.sort_by_group(ids.astype(jnp.float32), 4)
  with pytest.raises(ValueError, match=r"int32\(11,\)"):
    kernels.sort_by_group(ids[:, 0], 4)
  with pytest.raises(ValueError, match="num_groups=0"):
    kernels.sort_by_group(ids, 0)
  with pytest.raises(ValueError, match=r"16777216 pairs.*\(8388609, 2\)"):
    jax.eval_shape(
      lambda ids: kernels.sort_by_group(ids, 4),
      jax.ShapeDtypeStruct((2**23 + 1, 2), jnp.int32),
    )
  with pytest.raises(ValueError, match="'mosaic_gpu' cannot run: .* a cpu"):
    kernels.sort_by_group(ids, 4, implementation="mosaic_gpu")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32, np.int64])
def test_ids_of_any_integer_type(dtype):
  ids = np.array([[3, 0], [1, 3], [7, 2]], dtype)
  if dtype == np.int64:
    # Its low 32 bits alone are a 1.
    ids[2, 0] = 2**32 + 1
  expected = _sort(jnp.asarray(ids % 8, jnp.int32).at[2, 0].set(-1), 4)
  with jax.enable_x64(True):
    got = _sort(jnp.asarray(ids), 4)
  jax.tree.map(np.testing.assert_array_equal, got, expected)
  assert {x.dtype for x in got} == {np.dtype(np.int32)}
