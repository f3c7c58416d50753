"""The decoder as loops over tokens, heads and experts, in NumPy float64."""

from typing import NamedTuple

import numpy as np


def rotation(vector, position, config):
  """One head [W] turned pair by pair, as complex numbers, in float64."""
  half = config.head_dim // 2
  turned = np.zeros(config.head_dim)
  for i in range(half):
    angle = position * config.rotary.theta ** (-2 * i / config.head_dim)
    pair = complex(vector[i], vector[i + half])
    pair *= complex(np.cos(angle), np.sin(angle))
    turned[i], turned[i + half] = pair.real, pair.imag
  return turned


def norm(vector, scale, config):
  return vector / np.sqrt(np.mean(vector**2) + config.norm_eps) * scale


def attention(params, x, config):
  """[S, D] of one sequence, head by head and position by position."""
  heads, groups, width = config.num_heads, config.num_kv_heads, config.head_dim
  out = np.zeros((len(x), heads * width))
  projected = x @ params["query_key_value"]
  query, key, value = np.split(
    projected, [heads * width, (heads + groups) * width], axis=1
  )
  if config.attention.query_key_norm == "projection":
    query = np.stack([norm(q, params["query_norm"], config) for q in query])
    key = np.stack([norm(k, params["key_norm"], config) for k in key])

  def head(rows, position, index, scale):
    vector = rows[position][index * width : (index + 1) * width]
    if config.attention.query_key_norm == "head":
      vector = norm(vector, params[scale], config)
    return rotation(vector, position, config)

  for h in range(heads):
    group = h // (heads // groups)
    columns = slice(h * width, (h + 1) * width)
    for position in range(len(x)):
      q = head(query, position, h, "query_norm")
      scores = np.array(
        [
          q @ head(key, before, group, "key_norm") / np.sqrt(width)
          for before in range(position + 1)
        ]
      )
      share = np.exp(scores - scores.max())
      share /= share.sum()
      values = value[: position + 1, group * width : (group + 1) * width]
      out[position, columns] = share @ values
  return out @ params["output"]


def block(weights, x):
  """A gated SiLU block of one token, x [D]."""
  gate = x @ weights.w_gate
  return (gate / (1 + np.exp(-gate)) * (x @ weights.w_in)) @ weights.w_out


def experts(params, x, config):
  """One token [D] through its K likeliest experts and the shared one."""
  stack = params["stack"]
  scores = np.exp(x @ params["router"]["kernel"])
  chosen = np.argsort(-scores)[: config.num_selected]
  total = scores[chosen].sum() if config.router.renormalise else scores.sum()
  out = block(stack.shared, x)
  for expert in chosen:
    one = Weights(*(w[expert] for w in (stack.w_gate, stack.w_in, stack.w_out)))
    out = out + scores[expert] / total * block(one, x)
  return out


class Weights(NamedTuple):
  w_gate: np.ndarray
  w_in: np.ndarray
  w_out: np.ndarray


def logits(params, ids, config):
  """[S, V] of one sequence of tokens [S]; float64 parameters."""
  tree = params["params"]
  x = tree["embedding"][ids]
  for layer in range(config.num_layers):
    one = tree[f"layer_{layer}"]
    normal = [norm(row, one["attention_norm"], config) for row in x]
    x = x + attention(one["attention"], np.stack(normal), config)
    normal = [norm(row, one["ffn_norm"], config) for row in x]
    x = x + [experts(one["experts"], row, config) for row in normal]
  x = np.stack([norm(row, tree["final_norm"], config) for row in x])
  return x @ tree["embedding" if config.tied else "head"].T
