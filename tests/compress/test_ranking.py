"""Rankings, selections and their files."""

import json

import numpy as np
import pytest

from tanbr_jax import compress
from tanbr_jax.compress import ranking

SCORES = np.array([[0.1, 0.4, 0.4, -0.2], [5.0, 1.0, 0.3, 0.2]])


def lists(keep):
  return [ids.tolist() for ids in keep]


def test_the_best_come_first_and_of_equal_ones_the_first():
  assert compress.rank(SCORES).tolist() == [[1, 2, 0, 3], [0, 1, 2, 3]]
  assert lists(compress.keep_local(SCORES, 2)) == [[1, 2], [0, 1]]
  assert compress.rank(np.zeros((1, 3))).tolist() == [[0, 1, 2]]


def test_global_ranking_keeps_as_many_in_all():
  """4 of 8: 5, 1 and the two .4."""
  assert lists(compress.keep_global(SCORES, 2)) == [[1, 2], [0, 1]]
  # 6 of 8, at least two a layer: 5, 1, .4, .4, .3, .2.
  found = compress.keep_global(SCORES, 3, at_least=2)
  assert lists(found) == [[1, 2], [0, 1, 2, 3]]
  scores = SCORES - np.array([[9.0], [0.0]])
  assert lists(compress.keep_global(scores, 2)) == [[1], [0, 1, 2]]
  found = compress.keep_global(scores, 2, at_least=2)
  assert lists(found) == [[1, 2], [0, 1]]


def test_union_and_overlap():
  ours, theirs = [np.array([0, 2])], [np.array([2, 3])]
  assert lists(compress.union([ours, theirs])) == [[0, 2, 3]]
  np.testing.assert_array_equal(compress.overlap(ours, theirs), [0.5])
  mask = ranking.to_mask(ours, 4)
  assert mask.tolist() == [[True, False, True, False]]
  assert lists(ranking.from_mask(mask)) == [[0, 2]]


def test_files_of_rankings(tmp_path):
  path = tmp_path / "order.jsonl"
  compress.write_rankings(path, compress.rank(SCORES), layers=(1, 3))
  lines = path.read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {"1": [1, 2, 0, 3]},
    {"3": [0, 1, 2, 3]},
  ]
  # Read in whatever order they lie.
  path.write_text("\n".join(reversed(lines)))
  order, layers = compress.read_rankings(path)
  assert layers == (1, 3)
  assert order.tolist() == compress.rank(SCORES).tolist()


def test_files_of_pruned_experts(tmp_path):
  path = tmp_path / "pruned.json"
  keep = [np.array([0, 2]), np.array([1, 2, 3])]
  compress.write_pruned(path, keep, num_experts=4)
  assert json.loads(path.read_text()) == {"0": [1, 3], "1": [0]}
  found, layers = compress.read_pruned(path, num_experts=4)
  assert layers == (0, 1) and lists(found) == [[0, 2], [1, 2, 3]]
  with pytest.raises(ValueError, match=r"in \[0, 3\), got 3 in layer 0"):
    compress.read_pruned(path, num_experts=3)


@pytest.mark.parametrize(
  "text, message",
  [
    ("{", ":1 is not JSON"),
    ('{"a": [0]}', "must map layers"),
    ('{"0": [0.5]}', "must map layers"),
    ('{"0": [1, 1]}', "each of 2 experts once"),
    ('{"0": [0, 1]}\n{"1": [0]}', "the same experts"),
    ('{"0": [0, 1]}\n{"0": [1, 0]}', ":2 ranks layer 0 again"),
    ("", "the same experts"),
  ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
  path = tmp_path / "order.jsonl"
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    compress.read_rankings(path)
  assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match="cannot be read"):
    compress.read_rankings(tmp_path / "none.jsonl")


def test_bad_input():
  for scores in (SCORES[0], np.full((1, 2), np.nan)):
    with pytest.raises(ValueError, match="without NaN"):
      compress.rank(scores)
  for num in (0, 5, 2.0):
    with pytest.raises(ValueError, match=r"num_kept must be .*\[1, 4\]"):
      compress.keep_local(SCORES, num)
  with pytest.raises(ValueError, match="at_least=3"):
    compress.keep_global(SCORES, 2, at_least=3)
  with pytest.raises(ValueError, match=r"got \[1, 2\] layers"):
    compress.union([[np.array([0])], [np.array([0])] * 2])
