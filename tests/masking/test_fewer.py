import mask_cases
import numpy as np
import pytest
from mask_cases import MODEL, OWN_GATES, choose

from tanbr_jax import masking

# Experts 1, 0, 2 are chosen; of their sum, .9, they have 5/9, 3/9 and 1/9.
TOKEN = [[0.3, 0.5, 0.1, 0.1]]
LAYER = mask_cases.layer(TOKEN)


def near(expected):
  return [{e: pytest.approx(g, rel=1e-5) for e, g in expected.items()}]


def test_smaller_k_follows_the_family_rule():
  # Rescaled to one: .5 / .8 and .3 / .8.
  expected = near({1: 0.625, 0: 0.375})
  assert choose(masking.smaller_k(MODEL, 2), LAYER) == expected
  # Normalised over the old K.
  old = masking.smaller_k(MODEL, 2, keeps_gates=True)
  assert choose(old, LAYER) == near({1: 5 / 9, 0: 3 / 9})
  # A family that does not rescale has the probabilities themselves.
  own = mask_cases.layer(TOKEN, renormalise=False)
  assert choose(masking.smaller_k(OWN_GATES, 1), own) == near({1: 0.5})


def test_all_experts_are_the_original_to_the_bit():
  for same in (
    masking.smaller_k(MODEL, 3),
    masking.top_p(MODEL, 1.0),
    masking.xmoe(MODEL, 1.0),
    masking.naee_skip(MODEL, np.zeros((2, 2), np.float32)),
  ):
    found = same.func(masking_of_first_layer(same), LAYER)
    np.testing.assert_array_equal(found.expert_ids, LAYER.routing.expert_ids)
    np.testing.assert_array_equal(found.gates, LAYER.routing.gates)


def masking_of_first_layer(reroute):
  (tree,) = reroute.args
  return type(tree)(*(leaf[0] for leaf in tree))


@pytest.mark.parametrize(
  ("threshold", "expected"),
  [
    # .5 is above .4 alone; .5 is not above .5, with .3 it is .8; that is not
    # above .85, with .1 it is .9. At zero one expert is left.
    (0.4, {1: 1.0}),
    (0.5, {1: 0.625, 0: 0.375}),
    (0.85, {1: 5 / 9, 0: 3 / 9, 2: 1 / 9}),
    (0.0, {1: 1.0}),
  ],
)
def test_top_p_keeps_the_smallest_prefix_above_the_threshold(
  threshold, expected
):
  assert choose(masking.top_p(MODEL, threshold), LAYER) == near(expected)


@pytest.mark.parametrize(
  ("threshold", "expected"),
  # 5/9 = .556 is at least .5; with 3/9 it is .889; then 1.
  [(0.5, {1: 1.0}), (0.6, {1: 0.625, 0: 0.375}), (0.0, {1: 1.0})],
)
def test_xmoe_keeps_the_smallest_prefix_of_the_chosen(threshold, expected):
  assert choose(masking.xmoe(MODEL, threshold), LAYER) == near(expected)


def test_naee_drops_what_is_small_beside_the_first():
  # Ratios of this token: .6 and .2. Each rank and layer has its own.
  ratios = np.array([[0.7, 0.1], [0.5, 0.3]], np.float32)
  skip = masking.naee_skip(MODEL, ratios)
  assert choose(skip, LAYER, 0) == near({1: 5 / 6, 2: 1 / 6})
  assert choose(skip, LAYER, 1) == near({1: 0.625, 0: 0.375})


def test_refuses_what_cannot_be():
  one = mask_cases.with_one_expert()
  for make, message in (
    (lambda: masking.smaller_k(MODEL, 4), r"in \[1, 3\], got num_selected=4"),
    (lambda: masking.smaller_k(MODEL, 0), r"in \[1, 3\], got num_selected=0"),
    (lambda: masking.top_p(MODEL, 1.5), r"in \[0, 1\], got threshold=1.5"),
    (lambda: masking.xmoe(MODEL, float("nan")), "threshold must be finite"),
    (lambda: masking.naee_skip(one, np.ones((2, 0))), "got K=1"),
    (lambda: masking.naee_skip(MODEL, np.ones((2, 3))), r"\(2, 2\), got"),
    (lambda: masking.oea(MODEL, 4), r"in \[1, 3\], got num_own=4"),
    (lambda: masking.xshare(MODEL, 5), r"in \[1, 4\], got num_read=5"),
    (lambda: masking.sere(MODEL, 1, np.ones((2, 3, 3))), r"\(2, 4, 4\), got"),
    (lambda: masking.observe_activity(0), "num_steps=0"),
    (lambda: masking.oea(MODEL), "needs num_own or brings, got num_own=None"),
    (lambda: masking.xshare(MODEL, 2, num_steps=0), "got num_steps=0"),
  ):
    with pytest.raises(ValueError, match=message) as error:
      make()
    assert "\n" not in str(error.value)
