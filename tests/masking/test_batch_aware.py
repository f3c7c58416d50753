import mask_cases
import numpy as np
import pytest
from mask_cases import MODEL, choose

from tanbr_jax import masking, moe

# First, second and third choices: (0, 1, 2), (3, 1, 0) and (1, 2, 0).
TOKENS = [
  [0.4, 0.3, 0.2, 0.1],
  [0.2, 0.3, 0.1, 0.4],
  [0.1, 0.5, 0.3, 0.1],
]
LAYER = mask_cases.layer(TOKENS)


def experts(chosen):
  return [list(token) for token in chosen]


def test_oea_serves_with_what_the_step_reads_anyway():
  # The firsts are 0, 3 and 1: expert 2 is not read, the next best is taken.
  found = choose(masking.oea(MODEL, 1), LAYER)
  assert experts(found) == [[0, 1, 3], [3, 1, 0], [1, 0, 3]]
  assert found[0] == pytest.approx({0: 0.4 / 0.8, 1: 0.3 / 0.8, 3: 0.1 / 0.8})
  # A family that does not rescale has the probabilities themselves.
  own = mask_cases.layer(TOKENS, renormalise=False)
  found = choose(masking.oea(mask_cases.OWN_GATES, 1), own)
  assert found[2] == pytest.approx({1: 0.5, 0: 0.1, 3: 0.1})


def test_sure_tokens_bring_fewer():
  # More than .45 of the three's gates: .4 / .9 and .3 / .9 of the first token,
  # .4 / .9 and .3 / .9 of the second, .5 / .9 of the third. So 0, 1 and 3.
  brings = masking.xmoe(MODEL, 0.45)
  found = choose(masking.oea(MODEL, brings=brings), LAYER)
  assert experts(found) == [[0, 1, 3], [3, 1, 0], [1, 0, 3]]
  # Those of the smallest choice are the first k0.
  first = masking.smaller_k(MODEL, 1)
  assert choose(masking.oea(MODEL, brings=first), LAYER) == choose(
    masking.oea(MODEL, 1), LAYER
  )
  # Two steps of two sequences.
  steps = mask_cases.layer([*TOKENS, TOKENS[1]])
  found = choose(masking.oea(MODEL, brings=brings, num_steps=2), steps)
  # Tokens 0 and 2 bring 0 and 1; the others 3 and 1.
  assert experts(found) == [[0, 1], [3, 1], [1, 0], [3, 1]]


def test_steps_do_not_share_what_they_read():
  # Two steps of two sequences: tokens 0 and 2, tokens 1 and 3 (again token 1).
  layer = mask_cases.layer([*TOKENS, TOKENS[1]])
  found = choose(masking.oea(MODEL, 1, num_steps=2), layer)
  # Firsts 0 and 1; in the other step 3 alone.
  assert experts(found) == [[0, 1], [3], [1, 0], [3]]
  seen = masking.observe_activity(2)(
    layer._replace(routing=masking_choice(layer)), None
  )
  assert float(seen.num_distinct) == 2 + 1
  assert float(seen.num_pairs) == 2 + 1 + 2 + 1
  assert float(seen.mean_distinct) == 1.5 and float(seen.mean_active) == 1.5
  np.testing.assert_array_equal(seen.num_by_rank, [4, 2, 0])
  np.testing.assert_array_equal(seen.num_by_expert, [2, 2, 0, 2])
  with pytest.raises(ValueError, match="num_steps=2, tokens=3"):
    masking.observe_activity(2)(LAYER, None)


def masking_choice(layer):
  return moe.seam.of_layer(masking.oea(MODEL, 1, num_steps=2), 0)(layer)


def test_padding_brings_nothing():
  layer = mask_cases.layer(TOKENS, token_mask=[True, False, True])
  found = choose(masking.oea(MODEL, 1), layer)
  assert experts(found)[0] == [0, 1] and experts(found)[2] == [1, 0]


def test_xshare_serves_all_with_the_heaviest():
  # Gates, each of its token's three: 4/9 + 2/9 + 1/9 for expert 0; 3/9 + 3/9 +
  # 5/9 for 1; 2/9 + 0 + 3/9 for 2; 4/9 for 3. So 1 and 0.
  found = choose(masking.xshare(MODEL, 2), LAYER)
  assert experts(found) == [[0, 1], [1, 0], [1, 0]]
  assert found[1] == pytest.approx({1: 0.6, 0: 0.4})


def test_sere_sends_others_to_the_most_similar():
  similarity = np.zeros((2, 4, 4), np.float32)
  similarity[:, 2] = [0.3, 0.1, 1.0, 0.8]
  # Expert 2 is not read: of 0, 1 and 3, expert 3 is most like it.
  found = moe.seam.of_layer(masking.sere(MODEL, 1, similarity), 0)(LAYER)
  np.testing.assert_array_equal(
    found.expert_ids, [[0, 1, 3], [3, 1, 0], [1, 3, 0]]
  )
  np.testing.assert_array_equal(found.gates, LAYER.routing.gates)
  # Not similar enough: it stays.
  strict = masking.sere(MODEL, 1, similarity, least_similarity=0.9)
  found = moe.seam.of_layer(strict, 0)(LAYER)
  np.testing.assert_array_equal(found.expert_ids, LAYER.routing.expert_ids)


def test_after_masks_the_first_that_is_left_is_brought():
  mask = np.ones((2, 4), bool)
  mask[:, 1] = False
  after = moe.mask_experts(mask)
  found = choose(masking.oea(MODEL, 1, after=after), LAYER)
  # The last token's first is expert 1, masked: it brings 2. Nobody gets expert
  # 1, nor more experts than were left; gates are over the old sum.
  assert experts(found) == [[0, 2], [3, 0], [2, 0]]
  assert found[1] == pytest.approx({3: 0.4 / 0.9, 0: 0.2 / 0.9})


def test_similarity_is_the_mean_cosine_of_all_experts_outputs():
  params = mask_cases.params()
  found = masking.expert_similarity(MODEL, params, mask_cases.IDS)
  (hidden, _, _), _ = mask_cases.see()
  for layer in range(2):
    stack = params["params"][f"layer_{layer}"]["experts"]["stack"]
    w_in, w_out = np.float64(stack.w_in), np.float64(stack.w_out)
    x = np.float64(hidden[layer])
    out = np.maximum(np.einsum("nd,edf->enf", x, w_in), 0) ** 2
    out = np.einsum("enf,efd->end", out, w_out)
    norms = np.linalg.norm(out, axis=-1, keepdims=True)
    out /= np.where(norms == 0, 1, norms)  # an expert may give nothing
    expected = np.einsum("end,fnd->ef", out, out) / len(x)
    np.testing.assert_allclose(found[layer], expected, atol=1e-5)
