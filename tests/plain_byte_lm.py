"""The merged form of a one-layer `ByteLM` in float64 NumPy."""

import numpy as np


def merged(params, merge_weights, ids, *, num_heads):
  """Logits, and what the merged block sees.

  Args:
    params: of the model with experts, float64.
    merge_weights: [E].
    ids: [B, S].
    num_heads: of the attention.

  Returns:
    [B, S, 256] and [B, S, D].
  """
  embedding, layer = params["embedding"], params["layer_0"]
  x = embedding["position"][: ids.shape[1]] + embedding["bytes"][0][ids]
  for back in (1, 2):
    x[:, back:] += embedding["bytes"][back][ids[:, :-back]]
  x = x + _attention(
    layer["attention"], _norm(x, layer["attention_norm"]), num_heads
  )
  hidden = _norm(x, layer["ffn_norm"])
  stack = layer["experts"]["stack"]
  w_in = np.einsum("e,edf->df", merge_weights, stack.w_in)
  w_out = np.einsum("e,efd->fd", merge_weights, stack.w_out)
  x = x + np.maximum(hidden @ w_in, 0.0) ** 2 @ w_out
  logits = _norm(x, params["final_norm"]) @ params["logits"]["kernel"]
  return logits, hidden


def _norm(x, params):
  mean_square = (x**2).mean(-1, keepdims=True)
  return x / np.sqrt(mean_square + 1e-6) * params["scale"]


def _attention(params, x, num_heads):
  batch, length, _ = x.shape
  qkv = x @ params["query_key_value"]["kernel"]
  heads = qkv.reshape(batch, length, 3, num_heads, -1)
  query, key, value = heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]
  scores = np.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
  scores[:, :, np.triu(np.ones((length, length), bool), 1)] = -np.inf
  shares = np.exp(scores - scores.max(-1, keepdims=True))
  shares /= shares.sum(-1, keepdims=True)
  out = np.einsum("bhqk,bkhd->bqhd", shares, value)
  return out.reshape(batch, length, -1) @ params["output"]["kernel"]
