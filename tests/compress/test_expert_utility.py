"""PEU by hand, and where its definition is easily got wrong."""

import numpy as np
import pytest

from tanbr_jax import compress

LN2, LN3 = np.log(2), np.log(3)


def test_three_experts_by_hand():
  """K = 2.

  Token 1: s = (ln 3, 0, -9): A = {0, 1}, p = (3/4, 1/4).
  Token 2: s = (0, ln 2, 0): ties go to the first: A = {1, 0}, p = (2/3, 1/3).
  Token 3: s = (-9, ln 3, ln 3): A = {1, 2}, p = (1/2, 1/2).
  r = (3/4 + 2/3 + 1/2) / 3 = 23/36 = .639: what is kept is expert 0 in token 1
  and expert 1 in token 2. max(s, sigmoid(s)): ln 3 = 1.099 is above its sigmoid
  3/4, and ln 2 = .693 above its sigmoid 2/3.
  """
  logits = [[LN3, 0, -9], [0, LN2, 0], [-9, LN3, LN3]]
  found = compress.peu(logits, 2)
  np.testing.assert_allclose(found, [LN3 / 3, LN2 / 3, 0], rtol=1e-12)
  # Without a threshold all of A counts; sigmoid(0) = 1/2 is above 0.
  found = compress.peu(logits, 2, threshold=None)
  expected = [LN3 + 0.5, 0.5 + LN2 + LN3, LN3]
  np.testing.assert_allclose(found, np.array(expected) / 3, rtol=1e-12)
  found = compress.peu(logits, 2, threshold=None, transform="exp")
  np.testing.assert_allclose(
    found, np.array([3 + 1, 1 + 2 + 3, 3]) / 3, rtol=1e-12
  )


def test_padding_counts_nowhere():
  """Not in r, whose tokens are two then, and not in the mean."""
  logits = [[LN3, 0, -9], [9, 0, 0], [-9, LN3, LN3]]
  mask = np.array([True, False, True])
  found = compress.peu(logits, 2, token_mask=mask)
  # r = (3/4 + 1/2) / 2 = 5/8.
  np.testing.assert_allclose(found, [LN3 / 2, 0, 0], rtol=1e-12)
  np.testing.assert_array_equal(
    compress.peu(logits, 2, token_mask=np.zeros(3, bool)), 0
  )


def test_one_expert_selected_is_always_at_the_threshold():
  """K = 1: p = 1 for all tokens, r = 1, and p >= r keeps them all."""
  logits = np.random.default_rng(0).normal(size=(50, 4))
  np.testing.assert_array_equal(
    compress.peu(logits, 1), compress.peu(logits, 1, threshold=None)
  )


def test_equal_tokens_stay_whatever_their_mean_is_rounded_to():
  """The sum of 10 times .7 over 10 is .7 less an ulp or more."""
  token = np.log([0.7, 0.3, 1e-9])
  found = compress.peu(np.tile(token, (10, 1)), 2, transform="exp")
  np.testing.assert_allclose(found, [0.7, 0, 0], rtol=1e-12)


def test_negative_logits_do_not_lose_to_an_expert_that_nobody_chose():
  """The reason for the transform: a selected expert's s < 0 < sigmoid(s)."""
  logits = np.array([[-1.0, -2.0, -9.0], [-2.0, -1.0, -9.0]])
  plain = compress.peu(logits, 2, transform="identity", threshold=None)
  assert plain[2] == 0 > plain[:2].max()
  found = compress.peu(logits, 2, threshold=None)
  assert found[2] == 0 < found[:2].min()
  sigmoid = 1 / (1 + np.exp([1.0, 2.0]))
  np.testing.assert_allclose(found[:2], sigmoid.mean(), rtol=1e-12)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"router_logits": [1.0, 2.0]}, r"router_logits must be \[N, E\]"),
    ({"num_selected": 4}, "num_selected=4, E=3"),
    ({"num_selected": 1.0}, "num_selected must be an integer"),
    ({"transform": "tanh"}, "transform must be one of .*'tanh'"),
    ({"threshold": "max"}, "threshold must be .*'max'"),
    ({"threshold": True}, "threshold must be .*True"),
    ({"token_mask": np.ones(2)}, r"token_mask must be bool \[1\]"),
  ],
)
def test_bad_input(change, message):
  given = {"router_logits": [[1.0, 2.0, 3.0]], "num_selected": 2} | change
  with pytest.raises(ValueError, match=message):
    compress.peu(given.pop("router_logits"), given.pop("num_selected"), **given)
