"""Every method of the registry on one small model."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import compress, models, moe
from tanbr_jax.compress import statistics
from tanbr_jax.compress.merging import catalogue

pytestmark = pytest.mark.slow

CONFIG = models.preset("tiny", num_experts=5)
MODEL = models.Decoder(CONFIG)
L, E, G, D, F = 2, 5, 3, 16, 24
IDS = np.array(jax.random.randint(jax.random.key(1), (3, 12), 0, 64))
# A sequence of padding at its end.
MASK = np.ones(IDS.shape, bool)
MASK[1, 9:] = False
NEEDS = ("outputs", "all_outputs", "inputs", "activations", "gradients")
NEEDS += ("profiles", "samples")
# Logits of size 1 after two layers in float32.
CLOSE = {"atol": 5e-5, "rtol": 0}


class Case(NamedTuple):
  params: models.Params
  statistics: dict  # of two domains


apply = jax.jit(
  lambda model, params, **given: model.apply(
    params, IDS, attention_mask=MASK, **given
  ),
  static_argnums=0,
)


def calibrated(params):
  return {
    name: compress.calibrate(
      MODEL, params, [(IDS[rows], MASK[rows])], domain=name, needs=NEEDS
    )
    for name, rows in (("one", slice(0, 2)), ("two", slice(1, 3)))
  }


@pytest.fixture(scope="module")
def case():
  params = jax.jit(MODEL.init)(jax.random.key(0))
  return Case(params, calibrated(params))


@pytest.fixture(scope="module")
def alike():
  """All experts compute the same, with their neurons in other orders."""
  params = jax.jit(MODEL.init)(jax.random.key(0))
  layers = dict(params["params"])
  draws = np.random.default_rng(0)
  for layer in range(L):
    experts = layers[f"layer_{layer}"]["experts"]
    stack = experts["stack"]
    orders = [draws.permutation(F) for _ in range(E)]
    stack = dataclasses.replace(
      stack,
      w_in=jnp.stack([stack.w_in[0][:, o] for o in orders]),
      w_gate=jnp.stack([stack.w_gate[0][:, o] for o in orders]),
      w_out=jnp.stack([stack.w_out[0][o] for o in orders]),
    )
    layers[f"layer_{layer}"] = {
      **layers[f"layer_{layer}"],
      "experts": {**experts, "stack": stack},
    }
  params = {"params": layers}
  return Case(params, calibrated(params))


def stack_of(params, layer):
  return params["params"][f"layer_{layer}"]["experts"]["stack"]


def options_of(name):
  return {"task_mix": {"one": 0.25, "two": 0.75}} if name == "task_mix" else {}


@pytest.mark.parametrize("num_groups", [1, G])
@pytest.mark.parametrize("name", compress.MERGES)
def test_experts_that_compute_the_same_merge_to_what_they_are(
  alike, name, num_groups
):
  """Gates sum to 1; neurons and their statistics have to be put in order."""
  is_aligned = None if catalogue.CATALOGUE[name].is_aligned else True
  if name == "zip_it":
    is_aligned = None  # it matches neurons by itself
  model, params = compress.MERGES[name](
    MODEL,
    alike.params,
    alike.statistics,
    num_groups=num_groups,
    align=is_aligned,
    **options_of(name),
  )
  # Three matrices of each expert, and of the shared one of width 12.
  assert models.expert_bytes(params) == L * 4 * 3 * D * (num_groups * F + 12)
  if num_groups > 1:
    # One program for all groupings.
    model, params = compress.with_copies(model, params)
  # Padding goes to no expert, but to the one block.
  np.testing.assert_allclose(
    apply(model, params)[MASK], apply(MODEL, alike.params)[MASK], **CLOSE
  )


def test_without_alignment_they_do_not(alike):
  model, params = compress.MERGES["average"](
    MODEL, alike.params, alike.statistics
  )
  gap = apply(model, params) - apply(MODEL, alike.params)
  assert np.abs(gap).max() > 0.1


def test_the_frequency_average_by_hand(case):
  model, params = compress.MERGES["frequency"](
    MODEL, case.params, case.statistics
  )
  # The seam counts the same pairs.
  counts = sum(one.num_pairs for one in case.statistics.values())
  weights = jnp.asarray(counts / counts.sum(axis=1, keepdims=True), jnp.float32)
  dense, wanted = models.merge(MODEL, case.params, weights)
  assert model == dense
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, wanted
  )


def test_a_mix_weights_the_use_of_each_domain(case):
  _, params = compress.MERGES["task_mix"](
    MODEL, case.params, case.statistics, task_mix={"one": 0.25, "two": 0.75}
  )
  use = {
    name: one.num_pairs / one.num_pairs.sum(axis=1, keepdims=True)
    for name, one in case.statistics.items()
  }
  weights = 0.25 * use["one"] + 0.75 * use["two"]
  for layer in range(L):
    wanted = np.einsum(
      "e,edf->df", weights[layer], np.float64(stack_of(case.params, layer).w_in)
    )
    np.testing.assert_allclose(stack_of(params, layer).w_in, wanted, atol=1e-6)


def test_fisher_is_by_the_gradients_of_each_sequence(case):
  """Not by those of a batch: squares of a sum are other numbers."""
  _, params = compress.MERGES["fisher"](MODEL, case.params, case.statistics)

  @jax.jit
  def slope(stack, ids, mask):
    layers = dict(case.params["params"])
    layer = layers["layer_1"]
    layers["layer_1"] = {
      **layer,
      "experts": {**layer["experts"], "stack": stack},
    }
    logits = MODEL.apply(
      {"params": layers}, ids[None], attention_mask=mask[None]
    )
    gains = jax.nn.log_softmax(logits[0, :-1])[jnp.arange(11), ids[1:]]
    return jnp.sum(jnp.where(mask[1:], gains, 0))

  stack = stack_of(case.params, 1)
  total, weighted = 0.0, 0.0
  for row in (0, 1, 1, 2):  # two domains share a sequence
    found = jax.grad(slope)(
      stack, jnp.asarray(IDS[row]), jnp.asarray(MASK[row])
    )
    square = np.square(np.float64(found.w_in))
    total = total + square
    weighted = weighted + square * np.float64(stack.w_in)
  known = total.sum(axis=0) > 1e-12
  wanted = weighted.sum(axis=0)[known] / total.sum(axis=0)[known]
  got = np.asarray(stack_of(params, 1).w_in)[known]
  # Squares of float32 gradients, of which the small ones are rounded most.
  np.testing.assert_allclose(got, wanted, atol=2e-4)


LABELS = np.array([[0, 1, 0, 2, 1], [1, 1, 0, 0, 2]])


@pytest.fixture(scope="module")
def grouped(case):
  return compress.MERGES["frequency"](
    MODEL, case.params, case.statistics, num_groups=G, groups=LABELS
  )


def test_groups_are_routed_as_their_members_were(case, grouped):
  """Against the model of E experts each of which has its group's average."""
  counts = sum(one.num_pairs for one in case.statistics.values())
  layers = dict(case.params["params"])
  for layer in range(L):
    experts = layers[f"layer_{layer}"]["experts"]
    stack, weights = experts["stack"], np.zeros((E, E))
    for e in range(E):
      own = np.flatnonzero(LABELS[layer] == LABELS[layer][e])
      weights[e, own] = counts[layer][own] / counts[layer][own].sum()
    arrays = {
      name: jnp.asarray(
        np.einsum("ae,eij->aij", weights, np.float64(getattr(stack, name))),
        jnp.float32,
      )
      for name in ("w_in", "w_gate", "w_out")
    }
    experts = {**experts, "stack": dataclasses.replace(stack, **arrays)}
    layers[f"layer_{layer}"] = {**layers[f"layer_{layer}"], "experts": experts}
  wanted = apply(MODEL, {"params": layers})
  model, params = grouped
  assert model.config.num_experts == G
  np.testing.assert_allclose(apply(model, params), wanted, **CLOSE)
  copies, copied = compress.with_copies(model, params)
  assert copies == MODEL
  np.testing.assert_allclose(apply(copies, copied), wanted, **CLOSE)


def test_routers_of_centres_are_those_of_a_pruned_model(case, grouped):
  model, params = compress.MERGES["frequency"](
    MODEL,
    case.params,
    case.statistics,
    num_groups=G,
    groups=LABELS,
    router="centres",
  )
  counts = sum(one.num_pairs for one in case.statistics.values())
  assert model.config == dataclasses.replace(CONFIG, num_experts=G)
  for layer in range(L):
    best = sorted(
      max(
        np.flatnonzero(LABELS[layer] == group), key=lambda e: counts[layer, e]
      )
      for group in range(G)
    )
    experts = params["params"][f"layer_{layer}"]["experts"]
    kernel = case.params["params"][f"layer_{layer}"]["experts"]["router"]
    np.testing.assert_array_equal(
      experts["router"]["kernel"], kernel["kernel"][:, np.array(best)]
    )
    # The same experts in the same order as with routes.
    assert "routes" not in experts
    np.testing.assert_array_equal(
      experts["stack"].w_in, stack_of(grouped[1], layer).w_in
    )


def test_a_merged_model_is_pruned_by_its_copies(grouped):
  for method in (compress.prune, compress.reroute):
    with pytest.raises(ValueError, match="prune the model of with_copies"):
      method(*grouped, [[0, 1]] * L)
  copies = compress.with_copies(*grouped)
  keep = [[0, 1, 3], [1, 2, 4]]
  masked = apply(*copies, reroute=compress.reroute(*copies, keep))
  pruned = apply(*compress.prune(*copies, keep))
  np.testing.assert_allclose(pruned, masked, **CLOSE)


def test_the_scale_of_a_grouped_model_is_matched(case, grouped):
  _, params = grouped
  found = models.match_scale(
    MODEL, case.params, params, IDS, attention_mask=MASK
  )

  hidden, routed, routing = apply(
    MODEL, case.params, observe=Partial(see_outputs, ())
  )[1]

  @jax.jit
  def outputs(stack, hidden, routing, expert_of):
    _, own = moe.follow_routes(
      expert_of, routing.probabilities, routing, num_experts=G
    )
    merged = moe.routed(dataclasses.replace(stack, shared=None), hidden, own)
    return merged, moe.apply(stack.shared, hidden)

  for layer in range(L):
    routes = params["params"][f"layer_{layer}"]["experts"]["routes"]
    table = jnp.asarray(routes.expert_of, jnp.int32)
    one = jax.tree.map(lambda leaf, layer=layer: leaf[layer], routing)
    merged, shared = outputs(stack_of(found, layer), hidden[layer], one, table)
    rows = MASK.ravel()
    np.testing.assert_allclose(
      np.std(np.float64(merged)[rows], axis=0),
      np.std(np.float64(routed[layer] - shared)[rows], axis=0),
      rtol=1e-4,
    )


def see_outputs(tree, layer, output):
  del tree
  return layer.hidden, output.output, layer.routing


def test_statistics_of_the_merged_model_layer_by_layer(case):
  seen = []

  def take(model, params):
    assert model == MODEL
    seen.append(params)
    return calibrated(params)["one"]

  static = compress.MERGES["reg_mean"](
    MODEL, case.params, take(MODEL, case.params)
  )[1]
  del seen[:]
  _, params = compress.MERGES["reg_mean"](MODEL, case.params, take)
  assert len(seen) == L
  # The first layer has nothing before it.
  np.testing.assert_array_equal(
    stack_of(params, 0).w_out, stack_of(static, 0).w_out
  )
  for e in range(E):
    np.testing.assert_array_equal(
      stack_of(seen[1], 0).w_in[e], stack_of(params, 0).w_in
    )
  assert stack_of(seen[1], 1) is stack_of(case.params, 1)
  assert np.abs(stack_of(params, 1).w_out - stack_of(static, 1).w_out).max() > 0


def test_dropped_experts_give_their_mean_output(case):
  found = compress.statistics.total(case.statistics.values())
  means = found.outputs / np.maximum(found.num_pairs, 1)[:, :, None]
  keep = np.array([[3, 0, 1], [2, 4, 0]])
  model, params = compress.with_constants(MODEL, case.params, keep, means)

  def replaced(table, layer, output):
    # What a dropped expert gave, for what it gives on average.
    is_kept, means = table
    ids = layer.routing.expert_ids
    own = jnp.where(is_kept[ids][:, :, None], output.pair_outputs, means[ids])
    gates = layer.routing.gates
    return jnp.sum(gates[:, :, None] * (own - output.pair_outputs), axis=1)

  is_kept = np.zeros((L, E), bool)
  np.put_along_axis(is_kept, keep, True, axis=1)
  observe = Partial(
    moe.needs_pair_outputs(replaced),
    (jnp.asarray(is_kept), jnp.asarray(means, jnp.float32)),
  )
  change = apply(MODEL, case.params, observe=observe)[1][0]
  before = apply(MODEL, case.params, observe=Partial(see_outputs, ()))[1]
  after = apply(model, params, observe=Partial(see_outputs, ()))[1]
  rows = MASK.ravel()
  # The first layer reads the same in both models.
  np.testing.assert_allclose(
    (after[1][0] - before[1][0])[rows], change[rows], **CLOSE
  )
  with pytest.raises(ValueError, match=r"keep must be .* got \[0, 0\]"):
    compress.with_constants(MODEL, case.params, [[0, 0], [1, 2]], means)
  with pytest.raises(ValueError, match=r"\[L, E, D\] = \(2, 5, 16\)"):
    compress.with_constants(MODEL, case.params, keep, means[:1])
  with pytest.raises(ValueError, match="lead to experts, got Routes"):
    compress.with_copies(model, params)
  with pytest.raises(ValueError, match="place do not merge: layer_0"):
    models.merge(model, params, jnp.full(3, 1 / 3))
  with pytest.raises(ValueError, match="place is pruned already"):
    compress.prune(model, params, [[0, 1]] * L)


@pytest.mark.parametrize(
  ("name", "given", "message"),
  [
    ("average", {"num_groups": 5}, r"in \[2, 5\).* got num_groups=5"),
    ("average", {"num_groups": 0}, "got num_groups=0"),
    ("average", {"groups": "by_name", "num_groups": 3}, "got 'by_name'"),
    ("average", {"groups": LABELS[:1], "num_groups": 3}, r"\(2, 5\)"),
    ("average", {"groups": LABELS, "num_groups": 4}, "4 groups"),
    ("average", {"shrinkage": 0.5}, r"options \(\), got shrinkage=0.5"),
    ("task_mix", {}, "got task_mix=None"),
    ("task_mix", {"task_mix": {"one": 1.0}}, "sum to 1 of the domains"),
    ("task_mix", {"task_mix": {"one": 0.9, "two": 0.3}}, "'two': 0.3"),
    ("ream", {"max_group_size": 1, "num_groups": 3}, "cannot hold 5"),
    ("sub_moe", {"rank_share": 2}, "got rank_share=2"),
    ("sub_moe", {"seed": -1, "num_groups": 3}, "got seed=-1"),
    ("reg_mean", {"shrinkage": 1.5}, "got shrinkage=1.5"),
    ("average", {"router": "new"}, "got 'new'"),
  ],
)
def test_what_cannot_be_is_refused(case, name, given, message):
  with pytest.raises(ValueError, match=message) as error:
    compress.MERGES[name](MODEL, case.params, case.statistics, **given)
  assert "\n" not in str(error.value)


def test_statistics_that_lack_something_are_refused(case):
  given = case.statistics["one"]
  fields = [name for need in NEEDS for name in statistics.fields_of(need)]
  counts = dataclasses.replace(given, **dict.fromkeys(fields))
  for name in compress.MERGES:
    needs = compress.merge_needs(name)
    if not needs or name == "task_mix":
      continue
    with pytest.raises(ValueError, match=f"{name} needs .*{needs[0]!r}"):
      compress.MERGES[name](MODEL, case.params, counts)
  with pytest.raises(ValueError, match="hc_smoe needs .*'all_outputs'"):
    compress.MERGES["hc_smoe"](MODEL, case.params, counts, num_groups=3)
  other = jax.jit(MODEL.init)(jax.random.key(7))
  with pytest.raises(ValueError, match="another model"):
    compress.MERGES["average"](MODEL, other, case.statistics)
  dense = models.dense_form(MODEL)
  with pytest.raises(ValueError, match="stacked experts"):
    compress.MERGES["average"](dense, other, case.statistics)
