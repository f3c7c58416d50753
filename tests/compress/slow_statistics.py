"""The statistics of one layer in NumPy float64, a token at a time."""

import itertools

import numpy as np
import plain_moe


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


def top(logits, num_selected):
  return sorted(range(len(logits)), key=lambda e: (-logits[e], e))[
    :num_selected
  ]


def peu_sums(logits, num_selected, f, r):
  """Sums of token scores [E]; r is "mean", None or a number."""
  chosen = [top(s, num_selected) for s in logits]
  shares = [softmax(s[a]) for s, a in zip(logits, chosen, strict=True)]
  if r == "mean":
    r = np.mean([p.max() for p in shares])
  sums = np.zeros(logits.shape[1])
  for s, a, p in zip(logits, chosen, shares, strict=True):
    for e, share in zip(a, p, strict=True):
      if r is None or share >= r:
        sums[e] += f(s[e])
  return sums


def layer(experts, seen, num_selected):
  """Every field but PEU's and the gradients, of one layer."""
  num_experts = seen["logits"].shape[1]
  dim, width = experts["w_in"].shape[1:]
  out = {
    name: np.zeros(num_experts)
    for name in (
      "num_pairs probability selected_probability gates normalised_gates "
      "logits selected_logits output_norms gated_norms easy_ep "
      "normalised_gated_norms largest_output leave_one_out"
    ).split()
  }
  for name in ("outputs", "gated_outputs", "all_outputs"):
    out[name] = np.zeros((num_experts, dim))
  out["input_moments"] = np.zeros((num_experts, dim, dim))
  out["hidden"] = np.zeros((num_experts, width))
  out["hidden_moments"] = np.zeros((num_experts, width, width))
  out["logit_products"] = np.zeros((num_experts, num_experts))
  out["probability_products"] = np.zeros((num_experts, num_experts))
  out["top_probability"] = 0.0
  for n in range(len(seen["x"])):
    x, s, ids, gates = (seen[k][n] for k in ("x", "logits", "ids", "gates"))
    shares, residual = seen["probabilities"][n], seen["residual"][n]
    chosen = top(s, num_selected)
    out["top_probability"] += softmax(s[chosen]).max()
    out["probability"] += shares
    out["logits"] += s
    out["logit_products"] += np.outer(s, s)
    out["probability_products"] += np.outer(shares, shares)
    single = [plain_moe.one_expert(experts, e) for e in range(num_experts)]
    f = np.stack([plain_moe.block(one, x) for one in single])
    out["all_outputs"] += f
    routed = sum(g * f[e] for e, g in zip(ids, gates, strict=True))
    after = residual + routed
    cosine = residual @ after
    cosine /= np.linalg.norm(residual) * np.linalg.norm(after)
    for e in chosen:
      out["selected_logits"][e] += s[e]
    for e, g in zip(ids, gates, strict=True):
      norm = np.linalg.norm(f[e])
      u = np.maximum(x @ experts["w_in"][e], 0) ** 2
      out["num_pairs"][e] += 1
      out["selected_probability"][e] += shares[e]
      out["gates"][e] += g
      out["normalised_gates"][e] += g / gates.sum()
      out["output_norms"][e] += norm
      out["gated_norms"][e] += g * norm
      out["normalised_gated_norms"][e] += g / gates.sum() * norm
      out["easy_ep"][e] += g * norm * max(0, 1 - cosine)
      out["largest_output"][e] = max(
        out["largest_output"][e], np.abs(f[e]).max()
      )
      out["outputs"][e] += f[e]
      out["gated_outputs"][e] += g * f[e]
      out["input_moments"][e] += np.outer(x, x)
      out["hidden"][e] += u
      out["hidden_moments"][e] += np.outer(u, u)
    for e in range(num_experts):
      left = routed_without(s, f, num_selected, [e])
      out["leave_one_out"][e] += np.sum((left - routed) ** 2)
  return out


def routed_without(s, f, num_selected, gone):
  """A token's output of softmax gates that sum to 1, less some experts."""
  s = s.copy()
  s[list(gone)] = -np.inf
  chosen = top(s, num_selected)
  return softmax(s[chosen]) @ f[chosen]


def best_set(experts, xs, logits, num_selected, num_kept):
  """The set of experts of least squared error, of all sets."""
  num_experts = logits.shape[1]
  single = [plain_moe.one_expert(experts, e) for e in range(num_experts)]
  errors = {}
  for kept in itertools.combinations(range(num_experts), num_kept):
    gone = [e for e in range(num_experts) if e not in kept]
    errors[kept] = 0.0
    for x, s in zip(xs, logits, strict=True):
      f = np.stack([plain_moe.block(one, x) for one in single])
      off = routed_without(s, f, num_selected, gone)
      off = off - routed_without(s, f, num_selected, [])
      errors[kept] += np.sum(off**2)
  return list(min(errors, key=errors.get))
