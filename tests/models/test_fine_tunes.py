"""Merging tensors of which there are several values, against sums in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models
from tanbr_jax.models.fine_tunes import BASE, LowRank, Variants

E = 3
CONFIG = models.preset("tiny", num_experts=None, num_selected=1)
MODEL = models.FineTunes(models.Decoder(CONFIG), ("a", "b", "c"))
WEIGHTS = np.float32([0.2, 0.5, 0.3])
# Of values near 1, sums of 3 products or of 5 ranks in float32.
CLOSE = {"atol": 2e-6, "rtol": 0}


def normal(seed, *shape):
  return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


class Case:
  """Parameters, and each expert's values of every tensor that differs."""

  def __init__(self):
    # Filled in by NumPy, because `init` takes seconds to compile.
    shapes = jax.eval_shape(MODEL.dense.init, jax.random.key(0))
    params = jax.tree.map(
      lambda leaf: jnp.array(normal(9, *leaf.shape)), shapes
    )
    tree = dict(params["params"])
    self.base = params
    layers = [dict(tree[f"layer_{i}"]) for i in range(2)]
    # All experts have an embedding of their own.
    embedding = normal(0, E, *tree["embedding"].shape)
    tree["embedding"] = Variants(jnp.array(embedding), (0, 1, 2))
    # One expert has a matrix of its own, the others the base's.
    stack = layers[0]["experts"]["stack"]
    base = np.asarray(stack.w_in)
    own = normal(1, *base.shape)
    w_in = Variants(jnp.array([base, own]), (BASE, 2))
    stack = dataclasses.replace(stack, w_in=w_in)
    layers[0]["experts"] = {"stack": stack}
    # Two experts add products of ranks 2 and 3 to some columns, another one to
    # others, where it has values of its own besides.
    joined = np.asarray(layers[1]["attention"]["query_key_value"])
    left, right = normal(2, 16, 5), normal(3, 5, 8)
    left_0, right_0 = normal(4, 16, 1), normal(5, 1, 4)
    other = normal(6, *joined.shape)
    layers[1]["attention"] = {
      **layers[1]["attention"],
      "query_key_value": Variants(
        jnp.array([joined, other]),
        (BASE, 1),
        (
          LowRank(jnp.array(right), jnp.array(left), ((0, 2), (2, 3)), (4, 12)),
          LowRank(jnp.array(right_0), jnp.array(left_0), ((1, 1),), (60, 64)),
        ),
      ),
    }
    joined = np.stack([joined, other, joined])
    joined[0, :, 4:12] += left[:, :2] @ right[:2]
    joined[2, :, 4:12] += left[:, 2:] @ right[2:]
    joined[1, :, 60:64] += left_0 @ right_0
    # A vector, to which two experts add.
    norm = np.asarray(tree["final_norm"])
    rows = normal(7, 2, norm.size)
    update = LowRank(jnp.array(rows), None, ((0, 1), (1, 1)))
    tree["final_norm"] = Variants(jnp.array(norm[None]), (BASE,), (update,))
    tree |= {f"layer_{i}": layer for i, layer in enumerate(layers)}
    self.params = {"params": tree}
    self.values = {
      "embedding": embedding,
      "layer_0": np.stack([base, base, own]),
      "layer_1": joined,
      "final_norm": np.stack([norm + rows[0], norm + rows[1], norm]),
    }

  def pick(self, params):
    """The four tensors that differ, by the keys of `values`."""
    tree = params["params"]
    return {
      "embedding": tree["embedding"],
      "layer_0": tree["layer_0"]["experts"]["stack"].w_in,
      "layer_1": tree["layer_1"]["attention"]["query_key_value"],
      "final_norm": tree["final_norm"],
    }

  def check(self, params, rows):
    for name, found in self.pick(params).items():
      values = self.values[name].astype(np.float64)
      expected = np.tensordot(rows[name].astype(np.float64), values, 1)
      np.testing.assert_allclose(found, expected, **CLOSE, err_msg=name)


@pytest.fixture(scope="module")
def case():
  return Case()


def same(weights):
  return dict.fromkeys(
    ("embedding", "layer_0", "layer_1", "final_norm"), weights
  )


def test_a_merge_is_the_weighted_average(case):
  for weights in (*np.eye(E, dtype=np.float32), WEIGHTS):
    dense, merged = models.merge(MODEL, case.params, jnp.array(weights))
    assert dense == MODEL.dense == models.dense_form(MODEL)
    case.check(merged, same(weights))
  # What all share is not even copied.
  shared = merged["params"]["layer_0"]["attention"]["query_key_value"]
  assert (
    shared is case.base["params"]["layer_0"]["attention"]["query_key_value"]
  )
  assert jax.tree.structure(merged) == jax.tree.structure(case.base)


def test_each_layer_may_have_its_own_weights(case):
  weights = np.stack([WEIGHTS, np.float32([0.7, 0.1, 0.2])])
  _, merged = models.merge(MODEL, case.params, jnp.array(weights))
  case.check(
    merged,
    {
      "embedding": weights[0],
      "layer_0": weights[0],
      "layer_1": weights[1],
      "final_norm": weights[1],
    },
  )


def test_several_merges_at_once_are_each_of_them(case):
  rows = np.stack([WEIGHTS, np.float32([0.0, 0.1, 0.9])])
  several = jax.jit(
    jax.vmap(lambda x: case.pick(models.merge(MODEL, case.params, x)[1]))
  )(rows)
  for name, values in case.values.items():
    expected = np.tensordot(rows.astype(np.float64), values, 1)
    np.testing.assert_allclose(several[name], expected, **CLOSE)


def test_the_gradient_is_the_inner_product_with_each_difference(case):
  directions = {
    name: normal(20 + i, *values.shape[1:])
    for i, (name, values) in enumerate(case.values.items())
  }

  def objective(weights):
    found = case.pick(models.merge(MODEL, case.params, weights)[1])
    return sum(jnp.sum(found[n] * d) for n, d in directions.items())

  gradient = np.asarray(jax.jit(jax.grad(objective))(WEIGHTS))
  expected = sum(
    np.tensordot(
      values.astype(np.float64), directions[name], directions[name].ndim
    )
    for name, values in case.values.items()
  )
  # Only along the simplex: what is the same for all experts depends on what
  # weights of another sum are taken to mean. Sums of about 2,000 terms near 1,
  # each with errors of 2^-24 times partial sums of up to 50.
  np.testing.assert_allclose(
    gradient - gradient.mean(), expected - expected.mean(), atol=1e-3
  )


def test_a_product_is_added_before_the_one_rounding():
  base = normal(0, 6, 5).astype(jnp.bfloat16)
  left, right = (normal(i, *shape) for i, shape in ((1, (6, 2)), (2, (2, 5))))
  left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
  update = LowRank(jnp.array(right), jnp.array(left), ((0, 1), (1, 1)))
  one = Variants(jnp.array(base[None]), (BASE,), (update,))
  weights = np.float32([0.3, 0.7])
  wide = [each.astype(np.float64) for each in (base, left, right)]
  expected = wide[0] + (wide[1] * weights) @ wide[2]
  found = np.asarray(jax.jit(Variants.merge)(one, weights), np.float64)
  # Half of the last of eight bits, and the float32 sum's own rounding.
  assert (np.abs(found - expected) <= 2.0**-8 * np.abs(expected) + 1e-6).all()


def test_bytes_are_those_of_what_differs(case):
  ranks = 16 * 5 + 5 * 8 + 16 + 4 + 2 * 16
  values = sum(
    case.values[name][0].size * count
    for name, count in (
      ("embedding", 3),
      ("layer_0", 2),
      ("layer_1", 2),
      ("final_norm", 1),
    )
  )
  assert models.expert_bytes(case.params) == 4 * (ranks + values)


@pytest.mark.parametrize(
  "call",
  [
    lambda params: MODEL.apply(params, jnp.zeros((1, 2), jnp.int32)),
    lambda params: models.generate(
      MODEL, params, jnp.zeros((1, 2), jnp.int32), max_new_tokens=1
    ),
    lambda params: models.score(MODEL, params, jnp.zeros((1, 3), jnp.int32)),
    lambda params: MODEL.init(jax.random.key(0)),
    lambda params: models.observe_usage(params, MODEL.config.moe_layers),
    lambda params: models.merge(MODEL, params, jnp.ones(2)),
  ],
)
def test_what_needs_a_router_is_refused_in_one_line(case, call):
  message = r"models\.merge\(model|from_finetunes|routers|\(2,\) for E=3"
  with pytest.raises(ValueError, match=message) as error:
    call(case.params)
  assert "\n" not in str(error.value)


def test_the_table_has_a_line_for_each_kind():
  differences = (
    models.Difference("model.layers.0.q.weight", (0.3, 0.0, 0.1)),
    models.Difference("model.layers.1.q.weight", (0.4, 0.0, 0.1)),
    models.Difference("lm_head.weight", (0.0, 2.0, 0.0)),
  )
  model = dataclasses.replace(MODEL, differences=differences)
  # sqrt((0.3^2 + 0.4^2) / 2) = 0.354.
  assert models.difference_table(model).splitlines() == [
    "kind                        a  b    c",
    "model.layers.*.q.weight  0.35  -  0.1",
    "lm_head.weight              -  2    -",
  ]
  assert model == MODEL and hash(model) == hash(MODEL)
