"""Merges that are more than an average: what becomes of a layer's matrices.

All take a layer's stacked experts and `weights` [G, E], as `group_weights`
makes them, and return G stacked experts. A matrix starts as the weighted
average and is corrected where a method has a reason to; what the experts share
is carried over. Sums and solutions are float64 on the host. Letters: E experts,
G groups, N tokens, D model width, F an expert's hidden width.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg
from scipy.cluster import hierarchy

from tanbr_jax import moe
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Chance, Share
from tanbr_jax.compress.merging import grouping
from tanbr_jax.compress.merging.weights import nash_weights
from tanbr_jax.moe import feed_forward
from tanbr_jax.moe.parameters import ARRAYS

# Of the mean of the diagonal, added to it before a system is solved. What text
# says nothing of stays the average.
RIDGE = 1e-9
# Whose distances take 8 bytes a pair, twice.
MAX_NEURONS = 20_000


def average(stack: moe.Experts, weights: np.ndarray) -> moe.Experts:
  """Returns the weighted averages of all parameters."""
  block = moe.merge(stack, jnp.asarray(weights, jnp.float32))
  return moe.Experts(**vars(block))


def fisher(
  stack: moe.Experts,
  weights: np.ndarray,
  squared_gradients: Mapping[str, np.ndarray],
) -> moe.Experts:
  """Averages each parameter by its squared gradients.

  Matena and Raffel, Merging Models with Fisher-Weighted Averaging (2022), with
  the diagonal. A parameter without a gradient in any member is the average.

  Args:
    stack: E experts.
    weights: [G, E]; who is in a group, and the average.
    squared_gradients: name of an array -> [E, ...].
  """
  return _each(
    stack,
    weights,
    {
      name: lambda mean, own, members, name=name: _fisher(
        mean, own, squared_gradients[name][members]
      )
      for name in ARRAYS
    },
  )


def _fisher(
  mean: np.ndarray, own: np.ndarray, precision: np.ndarray
) -> np.ndarray:
  precision = np.asarray(precision, np.float64)
  total = precision.sum(axis=0)
  known = np.where(total > 0, total, 1)
  return np.where(total > 0, (precision * own).sum(axis=0) / known, mean)


@ranges.checked
def reg_mean(
  stack: moe.Experts,
  weights: np.ndarray,
  *,
  input_moments: np.ndarray,
  hidden_moments: np.ndarray,
  shrinkage: Share = 0.9,
) -> moe.Experts:
  """Merges each matrix by least squares on what its own expert's text gave.

  RegMean (Jin et al., 2023): W = (sum of G_e)^-1 sum of G_e W_e, with G_e the
  second moments of what W_e reads. Biases are averaged.

  Args:
    stack: E experts.
    weights: [G, E]; who is in a group, and the average.
    input_moments: [E, D, D], of each expert's inputs.
    hidden_moments: [E, F, F], of its hidden units, in the neurons' order.
    shrinkage: what the moments off the diagonal are multiplied with.
  """

  def solve(moments: np.ndarray) -> Callable[..., np.ndarray]:
    def of_group(
      mean: np.ndarray, own: np.ndarray, members: np.ndarray
    ) -> np.ndarray:
      shrunk = shrinkage * np.asarray(moments[members], np.float64)
      for one, expert in zip(shrunk, members, strict=True):
        np.fill_diagonal(one, np.diag(moments[expert]))
      sums = (shrunk @ (own - mean)).sum(axis=0)
      return mean + _solve(shrunk.sum(axis=0), sums)

    return of_group

  by_input = solve(input_moments)
  return _each(
    stack,
    weights,
    {"w_in": by_input, "w_gate": by_input, "w_out": solve(hidden_moments)},
  )


def merge_moe(
  stack: moe.Experts,
  weights: np.ndarray,
  *,
  inputs: np.ndarray,
  is_chosen: np.ndarray,
) -> moe.Experts:
  """Fits the output matrix of each average to the average of the outputs.

  MergeMoE (arXiv 2510.14436, 2025): the matrices that read are averaged, and
  the one that writes is the least squares solution for the weighted sum of the
  members' outputs, on tokens that any of them was chosen for.

  Args:
    stack: E experts.
    weights: [G, E], of the average and of the outputs.
    inputs: [N, D], what the layer reads.
    is_chosen: [N, E] bool, which experts the router chose.
  """
  merged = average(stack, weights)
  units = hidden_units(stack, inputs)
  found = hidden_units(merged, inputs)
  w_out = np.array(merged.w_out, np.float64)
  for group, (members, shares) in enumerate(_groups(weights)):
    is_own = is_chosen[:, members].any(axis=1)
    own = np.asarray(stack.w_out[members], np.float64)
    wanted = sum(
      share * (np.float64(units[expert][is_own]) @ block)
      for share, expert, block in zip(shares, members, own, strict=True)
    )
    have = np.float64(found[group][is_own])
    error = wanted - have @ w_out[group]
    w_out[group] += _solve(have.T @ have, have.T @ error)
  return dataclasses.replace(
    merged, w_out=jnp.asarray(w_out, merged.w_out.dtype)
  )


def zip_it(
  stack: moe.Experts, weights: np.ndarray, *, inputs: np.ndarray
) -> moe.Experts:
  """Merges the neurons that fire together, of one expert or of several.

  ZipIt (Stoica et al., 2024) for one hidden layer: the neurons of all members
  become F clusters by the correlation of their units. A cluster reads what its
  neurons read on average and writes what they all wrote, by their experts'
  shares. [R]: neurons are matched by average linkage, in place of the greedy
  pairs of the paper; biases follow their neurons.

  Args:
    stack: E experts.
    weights: [G, E], shares of the experts.
    inputs: [N, D], what the layer reads.

  Raises:
    ValueError: if a group has too many neurons to compare all of them.
  """
  hidden_dim = stack.w_in.shape[-1]
  most = max(len(members) for members, _ in _groups(weights)) * hidden_dim
  if most > MAX_NEURONS:
    raise ValueError(
      f"zip_it compares all pairs of at most {MAX_NEURONS} neurons, got "
      f"{most} in a group: more groups have fewer"
    )
  merged = average(stack, weights)
  units = hidden_units(stack, inputs)
  arrays = {
    name: np.array(getattr(merged, name), np.float64)
    for name in ("w_in", "w_gate", "b_in", "b_gate", "w_out")
    if getattr(merged, name) is not None
  }
  for group, (members, shares) in enumerate(_groups(weights)):
    if len(members) == 1:
      continue
    neurons = np.concatenate([*units[members]], axis=1, dtype=np.float64)
    clusters = _clusters(neurons, hidden_dim)
    is_in = clusters[None] == np.arange(hidden_dim)[:, None]  # [F, n F]
    writes = np.where(is_in, np.repeat(shares, hidden_dim)[None], 0)
    reads = writes / writes.sum(axis=1, keepdims=True)
    for name, to in arrays.items():
      own = np.asarray(getattr(stack, name)[members], np.float64)
      if name == "w_out":
        to[group] = writes @ own.reshape(-1, own.shape[-1])
      else:
        # Neurons are the last axis: [n, ..., F] -> [..., n F].
        to[group] = np.concatenate([*own], axis=-1) @ reads.T
  return dataclasses.replace(
    merged,
    **{
      name: jnp.asarray(array, getattr(merged, name).dtype)
      for name, array in arrays.items()
    },
  )


def _clusters(units: np.ndarray, num_clusters: int) -> np.ndarray:
  """Labels of the columns of units [N, n F] by their correlations."""
  off = units - units.mean(axis=0)
  norms = np.linalg.norm(off, axis=0)
  off = off / np.where(norms > 0, norms, 1)
  # Rounding must not make a distance negative; a dead neuron is like no other.
  distance = np.clip(1 - off.T @ off, 0, 2)
  above = np.triu_indices(len(distance), 1)
  tree = hierarchy.linkage(distance[above], "average")
  return grouping.cut(tree, num_clusters)


@ranges.checked
def sub_moe(
  stack: moe.Experts, weights: np.ndarray, *, rank_share: Chance = 1.0
) -> moe.Experts:
  """Averages the members' coordinates in a basis that they share.

  Sub-MoE (Li et al., 2025): the members' matrices side by side have one
  singular value decomposition U S [V_1 ... V_n], and the merged matrix is
  U S times the average of the V_e. That is the average of the matrices,
  projected on U: with all of U, the average itself. What the method adds is who
  is merged (`grouping.k_means`) and what a smaller rank leaves out.

  Args:
    stack: E experts.
    weights: [G, E], of the average.
    rank_share: the share of U's columns that is kept.
  """
  if rank_share == 1:
    return average(stack, weights)

  def project(
    mean: np.ndarray, own: np.ndarray, members: np.ndarray
  ) -> np.ndarray:
    del members
    # Ours are [in, out]: U is of the outputs.
    gram = (own.transpose(0, 2, 1) @ own).sum(axis=0)
    rank = max(1, round(rank_share * min(len(gram), own[..., 0].size)))
    _, basis = linalg.eigh(
      gram, subset_by_index=(len(gram) - rank, len(gram) - 1)
    )
    return mean @ basis @ basis.T

  return _each(
    stack, weights, dict.fromkeys(("w_in", "w_gate", "w_out"), project)
  )


def namex(stack: moe.Experts, weights: np.ndarray) -> moe.Experts:
  """Averages by the experts' Nash bargaining weights.

  NAMEx (Nguyen et al., 2025). [R]: vectors are the parameters themselves, as a
  model has no base expert that they start from, and the weights are scaled to
  sum to 1; the paper's momentum over layers belongs to training.

  Args:
    stack: E experts.
    weights: [G, E]; only who is in a group.
  """
  found = np.zeros(weights.shape)
  for group, (members, _) in enumerate(_groups(weights)):
    gram = np.zeros((len(members), len(members)))
    for name in ARRAYS:
      if getattr(stack, name) is not None:
        own = np.asarray(getattr(stack, name)[members], np.float64)
        flat = own.reshape(len(members), -1)
        gram += flat @ flat.T
    shares = nash_weights(gram)
    found[group, members] = shares / shares.sum()
  return average(stack, found)


def hidden_units(stack: moe.Experts, inputs: np.ndarray) -> np.ndarray:
  """Returns [E, N, F] float32, every expert's hidden units for N tokens."""
  own = feed_forward.without_shared(stack)
  x = jnp.asarray(inputs, own.w_in.dtype)
  block = moe.FeedForward(**vars(own))
  return np.asarray(_hidden_units(block, x), np.float32)


@jax.jit
def _hidden_units(block: moe.FeedForward, x: jax.Array) -> jax.Array:
  return jax.lax.map(lambda one: feed_forward.hidden_units(one, x), block)


def _groups(weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Each group's members and their shares.

  A member without a share, which no token chose, is one of no group here: it
  adds nothing to any sum.
  """
  for row in np.asarray(weights, np.float64):
    members = np.flatnonzero(row > 0)
    yield members, row[members]


def _each(
  stack: moe.Experts,
  weights: np.ndarray,
  corrections: Mapping[str, Callable[..., np.ndarray]],
) -> moe.Experts:
  """The average, with some arrays merged otherwise in groups of several.

  Args:
    stack: E experts.
    weights: [G, E].
    corrections: name of an array -> function of the average [...], the members'
      arrays [n, ...] and who they are [n] -> the merged array [...].
  """
  merged = average(stack, weights)
  arrays = {}
  for name, correct in corrections.items():
    if getattr(stack, name) is None:
      continue
    result = np.array(getattr(merged, name), np.float64)
    for group, (members, shares) in enumerate(_groups(weights)):
      if len(members) > 1:
        own = np.asarray(getattr(stack, name)[members], np.float64)
        mean = np.tensordot(shares, own, 1)
        result[group] = correct(mean, own, members)
    arrays[name] = jnp.asarray(result, getattr(merged, name).dtype)
  return dataclasses.replace(merged, **arrays)


def _solve(moments: np.ndarray, right: np.ndarray) -> np.ndarray:
  """Solves moments x = right; where they are zero, x is."""
  ridge = RIDGE * np.mean(np.diag(moments))
  if ridge <= 0:
    return np.zeros_like(right)
  moments = moments + ridge * np.eye(len(moments))
  return linalg.solve(moments, right, assume_a="pos")
