import jax
import numpy as np
import pytest
from plain_products import loop

from tanbr_jax.kernels.grouped_blocks import (
  _outer_batched,
  _outer_loop,
  _product_batched,
  _product_loop,
)

# name -> (rows, group sizes). The block is 8 rows where nothing else is said.
CASES = {
  "empty groups and a tail": (37, [0, 19, 0, 9]),
  "one row": (1, [0, 1, 0]),
  # The loop's blocks are 32 rows and 8: large ones alone, both, 1 and 2 small.
  "two sizes of blocks": (140, [64, 45, 1, 16]),
}
FORMS = {
  "loop": (_product_loop, _outer_loop),
  "batched": (_product_batched, _outer_batched),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_both_forms_equal_a_loop(form, case):
  # The batched form is what an accelerator runs; it is tested on a CPU too.
  num_rows, sizes = CASES[case]
  rng = np.random.default_rng(2)
  lhs = rng.normal(size=(num_rows, 5)).astype(np.float32)
  rhs = rng.normal(size=(len(sizes), 5, 6)).astype(np.float32)
  grad = rng.normal(size=(num_rows, 6)).astype(np.float32)
  out, _, outer = loop(lhs, rhs, sizes, grad)
  lhs[sum(sizes) :], grad[sum(sizes) :] = np.nan, np.inf
  product_of, outer_of = FORMS[form]
  sizes = np.array(sizes, np.int32)
  # Sums of at most 64 float32 products of values of about 1.
  np.testing.assert_allclose(
    jax.jit(product_of)(lhs, rhs, sizes), out, atol=2e-5
  )
  np.testing.assert_allclose(
    jax.jit(outer_of)(lhs, grad, sizes), outer, atol=2e-5
  )


def test_batches_whose_blocks_differ():
  rng = np.random.default_rng(3)
  lhs = rng.normal(size=(2, 140, 5)).astype(np.float32)
  rhs = rng.normal(size=(4, 5, 6)).astype(np.float32)
  # Large blocks alone, and small ones alone.
  sizes = np.array([[64, 32, 0, 32], [1, 16, 9, 0]], np.int32)
  out = jax.jit(jax.vmap(_product_loop, (0, None, 0)))(lhs, rhs, sizes)
  for i in range(2):
    expected, _, _ = loop(lhs[i], rhs, sizes[i], np.zeros((140, 6)))
    np.testing.assert_allclose(out[i], expected, atol=2e-5)
