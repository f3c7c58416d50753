"""The routed block as a loop over tokens, in float64."""

import numpy as np


def block(shape, w_gate, w_in, w_out, router, x, keep=None, shared=None):
  """[N, D] of x [N, D]; `keep` [N, K] leaves pairs out."""
  out = np.zeros_like(x)
  for n, token in enumerate(x):
    logits = token @ router
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    chosen = np.argsort(-probabilities)[: shape.num_selected]
    gates = probabilities[chosen]
    if shape.renormalise:
      gates = gates / gates.sum()
    for k, (e, gate) in enumerate(zip(chosen, gates, strict=True)):
      if keep is None or keep[n, k]:
        expert = (None if w_gate is None else w_gate[e], w_in[e], w_out[e])
        out[n] += gate * dense(shape, *expert, token)
    if shared is not None:
      out[n] += dense(shape, *shared, token)
  return out


def dense(shape, w_gate, w_in, w_out, x):
  act = {
    "relu": lambda h: np.maximum(h, 0),
    "silu": lambda h: h / (1 + np.exp(-h)),
  }
  hidden = x @ w_in
  if w_gate is None:
    return act[shape.activation](hidden) @ w_out
  return (act[shape.activation](x @ w_gate) * hidden) @ w_out
