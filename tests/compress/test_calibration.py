"""Calibration statistics, against NumPy float64 and one another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain_moe
import pytest
import slow_statistics

from tanbr_jax import compress, moe
from tanbr_jax.compress import observers, statistics

F = {
  "max_sigmoid": lambda s: max(s, 1 / (1 + np.exp(-s))),
  "identity": lambda s: s,
  "sigmoid": lambda s: 1 / (1 + np.exp(-s)),
  "exp": np.exp,
}
# Float32 sums of up to 10 terms a batch, products of 8 terms inside.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def stack(case, layer):
  return case.params["params"][f"layer_{layer}"]["experts"]["stack"]


@pytest.fixture(scope="module")
def seen(case):
  return case.seen("letters")


@pytest.mark.parametrize("layer", [0, 1])
def test_every_sum_is_that_of_a_loop_over_tokens(case, seen, layer):
  here = {name: x[layer] for name, x in seen.items()}
  experts = plain_moe.to_float64(stack(case, layer))
  expected = slow_statistics.layer(experts, here, 2)
  found = case.statistics["letters"]
  assert found.num_tokens == 18  # 4 sequences of 6, three of each pair padded
  for name, value in expected.items():
    np.testing.assert_allclose(
      getattr(found, name)[layer], value, err_msg=name, **CLOSE
    )
  np.testing.assert_allclose(found.sample_inputs[layer], here["x"][:7], **CLOSE)
  np.testing.assert_allclose(
    found.sample_logits[layer], here["logits"][:7], **CLOSE
  )


@pytest.mark.parametrize("place, threshold", [(0, "mean"), (1, None), (2, 0.6)])
def test_peu_is_that_of_a_loop_and_of_the_plain_function(
  case, seen, place, threshold
):
  found = case.statistics["letters"]
  for layer in (0, 1):
    logits = seen["logits"][layer]
    for row, (transform, f) in enumerate(F.items()):
      expected = slow_statistics.peu_sums(logits, 2, f, threshold)
      np.testing.assert_allclose(
        found.peu[place, row, layer], expected, **CLOSE
      )
      np.testing.assert_allclose(
        compress.peu(logits, 2, transform=transform, threshold=threshold),
        expected / len(logits),
        rtol=1e-12,
        atol=1e-12,
      )
      score = compress.score(
        "peu", found, transform=transform, threshold=threshold
      )
      np.testing.assert_allclose(score[layer] * 18, expected, **CLOSE)


def test_two_passes_give_the_bits_of_one(case):
  options = {"needs": ("peu",), "domain": "letters"}
  once = compress.calibrate(
    case.model, case.params, iter(case.text["letters"]), **options
  )
  twice = compress.calibrate(
    case.model,
    case.params,
    case.text["letters"],
    max_kept_tokens=17,
    **options,
  )
  np.testing.assert_array_equal(once.peu, twice.peu)
  with pytest.raises(ValueError, match="a sequence of batches, got an iter"):
    compress.calibrate(
      case.model,
      case.params,
      iter(case.text["letters"]),
      max_kept_tokens=17,
      **options,
    )


def test_domains_add_up_to_their_union(case):
  """None is forgotten: all of the text at once has the same sums."""
  both = compress.total(case.statistics.values())
  joined = compress.calibrate(
    case.model,
    case.params,
    case.text["letters"] + case.text["digits"],
    domain="both",
    needs=tuple(compress.NEEDS),
    thresholds=("mean", None, 0.6),
    max_samples=7,
  )
  assert both.domains == (("letters", 18), ("digits", 18))
  assert both.num_tokens == joined.num_tokens
  assert both.num_sequences == joined.num_sequences == 8
  for field in statistics.array_fields():
    ours, theirs = getattr(both, field.name), getattr(joined, field.name)
    if field.name == "squared_gradients":
      for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-12)
    elif field.name.startswith("sample"):
      assert ours.shape[1] == 14  # those of both
    elif field.name == "peu":
      # Each domain is under its own mean, but None and .6 are common.
      np.testing.assert_allclose(ours[1:], theirs[1:], rtol=1e-12)
      assert np.abs(ours[0] - theirs[0]).max() > 0.1
    else:
      np.testing.assert_allclose(ours, theirs, rtol=1e-12, err_msg=field.name)


def test_squared_gradients_are_those_of_each_sequence(case):
  """One at a time, by the derivative of the whole model."""
  ids, mask = case.text["letters"][0]

  def log_likelihood(params, ids, mask):
    logits = case.model.apply(params, ids[None], attention_mask=mask[None])[0]
    gain = jax.nn.log_softmax(logits[:-1])[np.arange(5), ids[1:]]
    return jnp.where(mask[1:] & mask[:-1], gain, 0).sum()

  slope = jax.jit(jax.grad(log_likelihood))
  expected = {"w_in": 0.0, "w_out": 0.0}
  for row, row_mask in zip(ids, mask, strict=True):
    found = slope(case.params, row, row_mask)["params"]
    for name in expected:
      stacked = np.stack(
        [getattr(found[f"layer_{i}"]["experts"]["stack"], name) for i in (0, 1)]
      )
      expected[name] = expected[name] + stacked.astype(np.float64) ** 2
  found = compress.calibrate(
    case.model,
    case.params,
    [(ids, mask)],
    needs=tuple(compress.NEEDS),
    max_samples=7,
  ).squared_gradients
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


def test_saved_statistics_are_read_as_they_were(case, tmp_path):
  path = tmp_path / "statistics.npz"
  saved = case.statistics["digits"]
  compress.save_statistics(path, saved)
  read = compress.load_statistics(path)
  for field in dataclasses.fields(saved):
    ours, theirs = getattr(saved, field.name), getattr(read, field.name)
    if field.name == "squared_gradients":
      assert ours.keys() == theirs.keys()
    np.testing.assert_equal(theirs, ours)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))
  with pytest.raises(ValueError, match="cannot be read"):
    compress.load_statistics(path)


def test_a_domain_without_tokens_is_counted_and_scores_zero(case, caplog):
  ids, mask = case.text["letters"][0]
  empty = compress.calibrate(
    case.model,
    case.params,
    [(ids, np.zeros_like(mask))],
    domain="none",
    needs=tuple(compress.NEEDS),
    max_samples=7,
  )
  assert "domain 'none' has no token" in caplog.text
  assert empty.domains == (("none", 0),)
  assert empty.empty_domains == ("none",)
  for one in compress.SCORES.values():
    np.testing.assert_array_equal(one(empty), 0)


def test_a_selection_is_of_raw_logits_or_of_what_was_used():
  """A correction bias chose experts 2 and 0, of the logits 1 and 2.

  The second token is padding.
  """
  logits = jnp.array([[0.0, 3, 2], [9, 8, 7]])
  routing = moe.Routing(
    jnp.array([[2, 0], [-1, -1]]), jnp.ones((2, 2)), jax.nn.softmax(logits)
  )
  is_token = jnp.array([True, False])
  layer = moe.MoeInput(logits, logits, routing, is_token, None)
  for selection, ids, values in (
    ("logits", [1, 2], [3, 2]),
    ("used", [2, 0], [2, 0]),
  ):
    found = observers._top_logits(layer, selection)
    assert found["top_ids"][0].tolist() == ids
    assert found["top_logits"].tolist() == [values, [-np.inf] * 2]


@pytest.mark.parametrize(
  "change, message",
  [
    ({"batches": []}, "batches must hold one batch or more, got none"),
    ({"batches": [np.zeros(3, np.int32)]}, r"\[B, S\].*got int32\[3\]"),
    ({"batches": [np.zeros((2, 3))]}, r"got float64\[2, 3\]"),
    ({"needs": ("peuh",)}, "needs must be of .*got 'peuh'"),
    ({"needs": "peu"}, "needs must be of .*got 'peu'"),
    ({"selection": "top"}, "selection must be one of .*'top'"),
    ({"thresholds": ("median",)}, "threshold must be .*'median'"),
    ({"thresholds": (np.nan,)}, "threshold must be finite"),
    ({"max_samples": -1}, "max_samples must be .*got -1"),
    ({"domain": "a/b"}, "domain must be"),
  ],
)
def test_calibration_refuses_in_one_line(case, change, message):
  given = {"batches": case.text["letters"]} | change
  with pytest.raises(ValueError, match=message) as error:
    compress.calibrate(case.model, case.params, **given)
  assert "\n" not in str(error.value)


def test_statistics_refuse_what_does_not_belong(case):
  ours = case.statistics["letters"]
  other = dataclasses.replace(ours, model_digest="another")
  with pytest.raises(ValueError, match="different model_digest"):
    ours + other
  with pytest.raises(ValueError, match="outputs was asked of one"):
    ours + dataclasses.replace(ours, outputs=None)
  ours.check_model(case.model, case.params)
  with pytest.raises(ValueError, match="other parameters"):
    other.check_model(case.model, case.params)
  config = dataclasses.replace(case.model.config, num_experts=5)
  with pytest.raises(ValueError, match=r"got \(L, E, K\) = \(2, 4, 2\)"):
    ours.check_model(dataclasses.replace(case.model, config=config))
  with pytest.raises(ValueError, match="got none"):
    compress.total([])
