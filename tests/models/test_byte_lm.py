import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models
from tanbr_jax.models import byte_lm


def test_a_byte_changes_no_logits_before_it(tiny):
  logits = tiny.apply(tiny.params, tiny.ids)
  changed = tiny.ids.at[0, 6].set((tiny.ids[0, 6] + 1) % 256)
  other = tiny.apply(tiny.params, changed)
  np.testing.assert_allclose(other[0, :6], logits[0, :6], atol=1e-5)
  np.testing.assert_allclose(other[1], logits[1], atol=1e-5)
  assert np.abs(other[0, 6:] - logits[0, 6:]).max(-1).min() > 1e-3


def test_a_prefix_gives_the_same_logits(tiny):
  np.testing.assert_allclose(
    tiny.apply(tiny.params, tiny.ids[:, :1]),
    tiny.apply(tiny.params, tiny.ids)[:, :1],
    atol=1e-5,
  )


def test_embedding_adds_the_previous_bytes(tiny):
  table = np.array(tiny.params["params"]["embedding"]["bytes"])
  position = np.array(tiny.params["params"]["embedding"]["position"])
  expected = np.zeros((2, 10, 8))
  for b in range(2):
    for s in range(10):
      expected[b, s] = position[s]
      for back in range(min(s, 2) + 1):
        expected[b, s] += table[back, tiny.ids[b, s - back]]
  network = byte_lm._Network(tiny.model.config)
  apply = jax.jit(
    lambda p, ids: network.apply(p, ids, capture_intermediates=True)
  )
  _, state = apply(tiny.params, tiny.ids)
  found = state["intermediates"]["embedding"]["__call__"][0]
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_refuses_a_sequence_longer_than_the_context(tiny):
  with pytest.raises(ValueError, match="length=11, context=10"):
    tiny.model.apply(tiny.params, input_ids=jnp.zeros((1, 11), jnp.int32))


@pytest.mark.parametrize(
  ("field", "value"), [("num_layers", 0), ("num_selected", 9)]
)
def test_refuses_impossible_sizes(field, value):
  with pytest.raises(ValueError, match=f"{field}={value}"):
    models.ByteLMConfig(**{field: value})
