"""The MoE block in NumPy float64, one token and one expert at a time."""

import math

import numpy as np

ACTIVATIONS = {
  "clamped_swish": lambda h: (
    np.minimum(h, 7) / (1 + np.exp(-1.702 * np.minimum(h, 7)))
  ),
  "gelu": np.vectorize(lambda h: h * (1 + math.erf(h / math.sqrt(2))) / 2),
  "gelu_tanh": lambda h: (
    h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) / 2
  ),
  "relu": lambda h: np.maximum(h, 0),
  "relu2": lambda h: np.maximum(h, 0) ** 2,
  "silu": lambda h: h / (1 + np.exp(-h)),
}
# What a gate is multiplied with, where that is not the other product itself.
MULTIPLIED = {"clamped_swish": lambda h: np.clip(h, -7, 7) + 1}
STACKED = ("w_in", "w_out", "w_gate", "b_in", "b_gate", "b_out")


def times(activation, hidden):
  """What act(gate) is multiplied with."""
  return MULTIPLIED.get(activation, lambda h: h)(hidden)


def to_float64(block):
  """The arrays of `Experts` or a `FeedForward`, absent ones left out."""
  tree = {"activation": block.activation}
  for name in (*STACKED, "shared_gate"):
    if getattr(block, name) is not None:
      tree[name] = np.asarray(getattr(block, name)).astype(np.float64)
  if block.shared is not None:
    tree["shared"] = to_float64(block.shared)
  return tree


def one_expert(experts, e):
  own = {name: experts[name][e] for name in STACKED if name in experts}
  return own | {"activation": experts["activation"]}


def average(experts, weights):
  own = {"activation": experts["activation"]}
  for name in STACKED:
    if name in experts:
      own[name] = sum(
        w * a for w, a in zip(weights, experts[name], strict=True)
      )
  return own


def block(arrays, x):
  """One block on one token [D]; what is shared is left out."""
  act = ACTIVATIONS[arrays["activation"]]
  hidden = x @ arrays["w_in"] + arrays.get("b_in", 0)
  if "w_gate" in arrays:
    gate = x @ arrays["w_gate"] + arrays.get("b_gate", 0)
    hidden = act(gate) * times(arrays["activation"], hidden)
  else:
    hidden = act(hidden)
  return hidden @ arrays["w_out"] + arrays.get("b_out", 0)


def shared(arrays, x):
  if "shared" not in arrays:
    return np.zeros_like(x)
  out = block(arrays["shared"], x)
  if "shared_gate" in arrays:
    out = out / (1 + np.exp(-(x @ arrays["shared_gate"])))
  return out


def routed(experts, x, ids, gates):
  """[N, D] of x [N, D], ids and gates [N, K]; other ids are skipped."""
  num_experts = len(experts["w_in"])
  out = np.zeros_like(x)
  for n in range(len(x)):
    out[n] = shared(experts, x[n])
    for e, gate in zip(ids[n], gates[n], strict=True):
      if 0 <= e < num_experts:
        out[n] += gate * block(one_expert(experts, e), x[n])
  return out


def soft(experts, x, weights):
  ids = np.tile(np.arange(weights.shape[1]), (len(x), 1))
  return routed(experts, x, ids, weights)


def merged(experts, x, weights):
  """[N, D] of x [N, D] and each token's merge weights [N, E]."""
  rows = [
    shared(experts, x[n]) + block(average(experts, weights[n]), x[n])
    for n in range(len(x))
  ]
  return np.stack(rows)
