"""Grouped products and their gradients as plain loops."""

import numpy as np


def loop(lhs, rhs, sizes, grad):
  """Value and both gradients of sum(out * grad), row by row in float64."""
  lhs, rhs, grad = (np.array(x, np.float64) for x in (lhs, rhs, grad))
  out = np.zeros(grad.shape)
  lhs_grad, rhs_grad = np.zeros(lhs.shape), np.zeros(rhs.shape)
  for row, group in enumerate(np.repeat(np.arange(len(sizes)), sizes)):
    out[row] = lhs[row] @ rhs[group]
    lhs_grad[row] = rhs[group] @ grad[row]
    rhs_grad[group] += np.outer(lhs[row], grad[row])
  return out, lhs_grad, rhs_grad
