"""Generation on a chain whose next token's logits follow from the last one."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models
from tanbr_jax.models import generation

VOCAB = 7
CONFIG = models.preset("tiny", num_layers=1, context=16)
STEPS = []


class Chain:
  """A `models.Generator` with logits `table[token]`."""

  config = types.SimpleNamespace(vocab_size=VOCAB, context=12)

  def prefill(self, table, ids, *, capacity, attention_mask, reroute):
    del attention_mask, reroute
    return table[ids[:, -1]], jnp.int32(capacity)

  def decode_step(self, table, cache, ids, *, attention_mask, reroute):
    del reroute
    jax.debug.callback(lambda mask: STEPS.append(mask), attention_mask)
    return table[ids], cache


def chain_of(nexts):
  """A table whose likeliest token after i is `nexts[i]`."""
  return jnp.eye(VOCAB, dtype=jnp.float32)[jnp.array(nexts)]


def generate(nexts, prompts, **given):
  STEPS.clear()
  ids = jnp.array(prompts, jnp.int32)[:, None]
  found = models.generate(Chain(), chain_of(nexts), ids, **given)
  jax.effects_barrier()
  return np.asarray(found)


def test_sequences_end_and_are_padded_and_the_last_one_ends_all():
  # 0 -> 1 -> 2 -> 3 -> 4 -> 0, and 5 -> 6 -> 5.
  nexts = [1, 2, 3, 4, 0, 6, 5]
  given = {"max_new_tokens": 8, "eos_token_ids": (3, 6), "pad_token_id": 4}
  found = generate(nexts, [0, 1, 5, 3], **given)
  expected = [
    [1, 2, 3, 4, 4, 4, 4, 4],
    [2, 3, 4, 4, 4, 4, 4, 4],
    [6, 4, 4, 4, 4, 4, 4, 4],
    [4, 0, 1, 2, 3, 4, 4, 4],
  ]
  np.testing.assert_array_equal(found, expected)
  # The first token comes of the prompt, the last one of the fourth step. Those
  # that go on are told.
  active = [[1, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
  np.testing.assert_array_equal(STEPS, active)
  # Padding is the first end where nothing else is said; without an end all
  # tokens come.
  found = generate(nexts, [0, 1, 5, 3], max_new_tokens=8, eos_token_ids=(3, 6))
  np.testing.assert_array_equal(found[0], [1, 2, 3, 3, 3, 3, 3, 3])
  found = generate(nexts, [0, 5], max_new_tokens=8)
  expected = [[1, 2, 3, 4, 0, 1, 2, 3], [6, 5, 6, 5, 6, 5, 6, 5]]
  np.testing.assert_array_equal(found, expected)


def test_tokens_are_drawn_from_what_is_left_of_the_softmax():
  logits = np.log([0.3, 0.25, 0.2, 0.15, 0.06, 0.03, 0.01])
  table = jnp.tile(jnp.float32(logits), (VOCAB, 1))
  # At a temperature of 1 / 2 probabilities are squared; the five likeliest
  # stay, and of those the fewest that have 0.8 together: 0.395, 0.275, 0.176.
  left = np.array([0.3, 0.25, 0.2, 0, 0, 0, 0]) ** 2
  found = models.generate(
    Chain(),
    table,
    jnp.zeros((3000, 1), jnp.int32),
    max_new_tokens=2,
    temperature=0.5,
    top_k=5,
    top_p=0.8,
    key=jax.random.key(0),
  )
  for column in np.asarray(found).T:
    shares = np.bincount(column, minlength=VOCAB) / 3000
    # Five standard deviations of a share: 5 sqrt(1/4 / 3000).
    np.testing.assert_allclose(shares, left / left.sum(), atol=0.046)
    assert set(column) == {0, 1, 2}
  assert (np.asarray(found)[:, 0] != np.asarray(found)[:, 1]).any()


@pytest.mark.parametrize("top_k, top_p", [(3, None), (None, 0.5), (4, 0.9)])
def test_what_is_left_out_is_the_sorted_list_s_tail(top_k, top_p):
  logits = np.random.RandomState(0).standard_normal((5, 11)).astype(np.float32)
  found = generation.likeliest(
    logits, top_k, None if top_p is None else jnp.float32(top_p)
  )
  for row, kept in zip(logits, np.isfinite(found), strict=True):
    order = sorted(range(11), key=lambda i: -row[i])[:top_k]
    shares = np.exp(row[order]) / np.exp(row[order]).sum()
    total, expected = 0.0, set()
    for token, share in zip(order, shares, strict=True):
      if top_p is None or total < top_p:
        expected.add(token)
      total += share
    assert set(np.flatnonzero(kept)) == expected


@pytest.fixture(scope="module")
def params():
  # Filled in by NumPy, because `init` takes seconds to compile.
  shapes = jax.eval_shape(models.Decoder(CONFIG).init, jax.random.key(0))
  state = np.random.RandomState(0)
  return jax.tree.map(
    lambda leaf: jnp.array(0.5 * state.standard_normal(leaf.shape), leaf.dtype),
    shapes,
  )


def test_a_merged_model_goes_on_as_its_whole_forward_and_compiles_once(params):
  weights = jnp.array([0.1, 0.2, 0.3, 0.4])
  dense, merged = models.merge(models.Decoder(CONFIG), params, weights)
  prompts = np.random.RandomState(0).randint(0, 64, (2, 2, 5)).astype(np.int32)
  masks = np.array([[[1] * 5, [1, 1, 1, 0, 0]], [[1] * 5, [0, 0, 0, 1, 1]]])
  # One program for prompts of any length: padding is on the right.
  apply = jax.jit(dense.apply)
  before = None
  for ids, mask in zip(prompts, masks, strict=True):
    found = models.generate(
      dense, merged, input_ids=ids, attention_mask=mask, max_new_tokens=4
    )
    for row, is_token, tokens in zip(ids, mask, found, strict=True):
      whole = [*row[is_token > 0]]
      for token in np.asarray(tokens):
        padded = np.pad(whole, (0, 9 - len(whole))).astype(np.int32)
        logits = apply(merged, padded[None])[0, len(whole) - 1]
        assert token == np.argmax(logits)
        whole.append(token)
    size = generation._generate._cache_size()
    assert before in (None, size)
    before = size


def test_sequences_that_have_ended_cost_no_experts(params):
  model = models.Decoder(CONFIG)

  @jax.jit
  def step(params, cache, mask):
    look = jax.tree_util.Partial(lambda layer, _: layer.routing.expert_ids)
    return model.decode_step(
      params,
      cache,
      jnp.arange(3, dtype=jnp.int32),
      attention_mask=mask,
      observe=look,
    )

  cache = model.init_cache(3, 4)._replace(mask=jnp.zeros((3, 4), bool))
  whole, _, all_ids = step(params, cache, jnp.ones(3, bool))
  some, after, ids = step(params, cache, jnp.array([True, False, True]))
  assert (ids[0, 1] == -1).all() and (all_ids >= 0).all()
  np.testing.assert_array_equal(ids[0, ::2], all_ids[0, ::2])
  np.testing.assert_array_equal(some[::2], whole[::2])
  np.testing.assert_array_equal(after.mask[:, 0], [True, False, True])


@pytest.mark.parametrize(
  "given, message",
  [
    ({"input_ids": np.zeros(3, np.int32)}, r"input_ids .*int32\(3,\)"),
    ({"input_ids": np.zeros((2, 0), np.int32)}, r"input_ids .*\(2, 0\)"),
    ({"input_ids": np.zeros((2, 3), np.float32)}, "input_ids .*float32"),
    ({"input_ids": np.full((1, 2), 64)}, "input_ids .*vocab_size=64.*got 64"),
    ({"input_ids": np.full((1, 2), -1)}, "input_ids .*got -1"),
    ({"attention_mask": np.ones((1, 3))}, r"attention_mask .*\(1, 3\)"),
    ({"attention_mask": np.array([[1, 1], [0, 0]])}, "row 1"),
    ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ({"max_new_tokens": 2.0}, "max_new_tokens=2.0"),
    ({"max_new_tokens": 15}, "length=2, max_new_tokens=15, context=16"),
    ({"temperature": -1.0}, "temperature=-1.0"),
    ({"temperature": 1.0}, "key=None"),
    ({"top_k": 3}, "top_k=3"),
    ({"temperature": 1.0, "key": 0, "top_k": 65}, "top_k=65"),
    ({"temperature": 1.0, "key": 0, "top_p": 0.0}, "top_p=0.0"),
    ({"eos_token_ids": [1, 64]}, "eos_token_ids .*got 64"),
    ({"pad_token_id": 64}, "pad_token_id .*got 64"),
  ],
)
def test_what_cannot_be_generated_is_one_line(given, message):
  ids = np.zeros((2, 2), np.int32)
  with pytest.raises(ValueError, match=message) as error:
    models.generate(
      models.Decoder(CONFIG),
      None,
      **{"input_ids": ids, "max_new_tokens": 2, **given},
    )
  assert "\n" not in str(error.value)


def test_a_model_without_a_cache_is_refused():
  model = models.ByteLM(models.ByteLMConfig())
  with pytest.raises(ValueError, match="models.Generator.*ByteLM"):
    models.generate(model, None, np.zeros((1, 1), int), max_new_tokens=1)
