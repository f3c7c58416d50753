"""Scores of a three-expert example by hand, and their pooling."""

import dataclasses

import numpy as np
import pytest

from tanbr_jax import compress


def by_hand(**changes):
  """One layer, E = 3, K = 2, four tokens; expert 2 is never chosen.

  Experts 0 and 1 are chosen by all: gates .75, .25 in two tokens and .5, .5 in
  the others; |f_0| = 2, |f_1| = 4 for all; 1 - cos = .1 for all.
  """
  fields = {
    "model_digest": "hand",
    "num_selected": 2,
    "selection": "logits",
    "thresholds": ("mean",),
    "domains": (("hand", 4),),
    "num_sequences": 1,
    "num_pairs": [4, 4, 0],
    "probability": [1.6, 1.4, 1],
    "selected_probability": [1.6, 1.4, 0],
    "gates": [2.5, 1.5, 0],
    "normalised_gates": [2.5, 1.5, 0],
    "logits": [-4, -6, -8],
    "selected_logits": [-4, -6, 0],
    "top_probability": 2.5,
    "peu": np.arange(12).reshape(1, 4, 1, 3),
    "output_norms": [8, 16, 0],
    "gated_norms": [5, 6, 0],
    "normalised_gated_norms": [5, 6, 0],
    "easy_ep": [0.5, 0.6, 0],
    "largest_output": [1.5, 30, 0],
    "outputs": np.zeros((1, 3, 2)),
    "gated_outputs": np.zeros((1, 3, 2)),
    "leave_one_out": [3, 2, 0],
  } | changes
  for name, value in fields.items():
    if isinstance(value, list):
      fields[name] = np.array([value], np.float64)
  return compress.CalibrationStatistics(**fields)


@pytest.mark.parametrize(
  "name, expected",
  [
    ("frequency", [1, 1, 0]),
    ("weighted_frequency", [0.625, 0.375, 0]),
    ("all_logits", [-1, -1.5, -2]),
    ("act_logits", [-1, -1.5, 0]),  # the unchosen one wins: PEU's reason
    ("seer_soft", [0.4, 0.35, 0.25]),
    ("ean", [2, 4, 0]),
    # (2 * 2.5 / 4, 4 * 1.5 / 4)
    ("reap", [1.25, 1.5, 0]),
    ("easy_ep", [0.125, 0.15, 0]),
    ("leave_one_out", [0.75, 0.5, 0]),
    ("peu", [0, 0.25, 0.5]),
  ],
)
def test_three_experts_by_hand(name, expected):
  np.testing.assert_allclose(
    compress.score(name, by_hand()), [expected], rtol=1e-12
  )


def test_every_score_is_registered_with_what_it_needs(case):
  found = case.statistics["letters"]
  for name, one in compress.SCORES.items():
    scores = one(found)
    assert scores.shape == (2, 4) and np.isfinite(scores).all(), name
    assert one.source
    bare = dataclasses.replace(
      found, peu=None, outputs=None, leave_one_out=None
    )
    for need in one.needs:
      with pytest.raises(ValueError, match=rf"{name} needs .*'{need}'"):
        one(bare)


def test_super_experts_are_kept_in_the_first_three_quarters():
  """Of 4 layers the last is no early one; 30 and 31 are the large outputs."""
  largest = np.ones((4, 3))
  largest[1, 1], largest[3, 0] = 30, 31
  wide = {
    name: np.tile(getattr(by_hand(), name), (4, 1))
    for name in ("num_pairs", "normalised_gated_norms")
  }
  found = compress.score(
    "reap", by_hand(largest_output=largest, **wide), super_experts=True
  )
  # The 99.5th percentile of 12 values lies between the two largest ones: 30.9
  # of 31, which the 30 is not above.
  assert np.isfinite(found).all()
  largest = np.ones((400, 3))
  largest[7, 2] = 30
  wide = {name: np.tile(x[:1], (400, 1)) for name, x in wide.items()}
  found = compress.score(
    "reap", by_hand(largest_output=largest, **wide), super_experts=True
  )
  assert np.argwhere(np.isinf(found)).tolist() == [[7, 2]]
  np.testing.assert_allclose(found[0], [1.25, 1.5, 0])


def test_generalists_pool_by_tokens_or_by_domains():
  """8 and 4 tokens; frequencies (1, 1, 0) and (0, 1, 1) of them."""
  ours = by_hand(
    num_pairs=[8, 8, 0],
    domains=(("a", 8),),
  )
  theirs = by_hand(num_pairs=[0, 4, 4], domains=(("b", 4),))
  found = compress.generalist("frequency", [ours, theirs])
  np.testing.assert_allclose(found, [[8 / 12, 1, 4 / 12]])
  found = compress.generalist("frequency", [ours, theirs], pooling="domains")
  np.testing.assert_allclose(found, [[0.25, 0.5, 0.25]])
  none = by_hand(num_pairs=[0, 0, 0], domains=(("none", 0),))
  found = compress.generalist("frequency", [ours, none], pooling="domains")
  np.testing.assert_allclose(found, [[0.25, 0.25, 0]])


def test_peu_of_domains_is_each_under_its_own_threshold(case):
  parts = list(case.statistics.values())
  found = compress.generalist("peu", parts)
  own = [compress.score("peu", one) for one in parts]
  np.testing.assert_allclose(found, (own[0] + own[1]) / 2, rtol=1e-12)


def test_random_is_the_seed():
  found = [compress.score("random", by_hand(), seed=s) for s in (0, 0, 1)]
  np.testing.assert_array_equal(found[0], found[1])
  assert (found[0] != found[2]).all()


def test_scores_refuse():
  with pytest.raises(ValueError, match="score must be one of .*'peuh'"):
    compress.score("peuh", by_hand())
  with pytest.raises(ValueError, match="transform must be one of .*'tanh'"):
    compress.score("peu", by_hand(), transform="tanh")
  with pytest.raises(ValueError, match=r"\('mean',\).*threshold=None"):
    compress.score("peu", by_hand(), threshold=None)
  with pytest.raises(ValueError, match="seed must be .*seed=-1"):
    compress.score("random", by_hand(), seed=-1)
  with pytest.raises(ValueError, match="pooling must be one of"):
    compress.generalist("reap", [by_hand()], pooling="sum")
  with pytest.raises(ValueError, match="got none"):
    compress.generalist("reap", [])
  with pytest.raises(ValueError, match="residual stream"):
    compress.score("easy_ep", by_hand(easy_ep=[np.nan, 1, 1]))
