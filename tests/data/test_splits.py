import numpy as np
import pytest

from tanbr_jax.data import splits


def _documents(sizes):
  return [
    (f"d{i}", np.full(size, i, np.uint8).tobytes())
    for i, size in enumerate(sizes)
  ]


@pytest.mark.parametrize(
  "sizes", [[100] * 100, [5] * 30 + [400] * 3, list(range(1, 200))]
)
def test_documents_are_in_one_split_and_shares_hold(sizes):
  documents = _documents(sizes)
  parts = splits.assign_splits(documents)
  names = [name for split in splits.SPLITS for name, _ in parts[split]]
  assert sorted(names) == sorted(name for name, _ in documents)
  total = sum(sizes)
  for split in ("validation", "test"):
    size = sum(len(text) for _, text in parts[split])
    assert 0.1 * total <= size
  if max(sizes) < 0.025 * total:
    # Whatever is taken overshoots by a quarter of the share at most.
    train = sum(len(text) for _, text in parts["train"])
    assert 0.75 * total <= train <= 0.8 * total


def test_text_of_splits_is_disjoint():
  text = splits.split_by_document(_documents([50] * 60))
  # Document i is made of byte i alone; 10 is the line end that joins them.
  held = [set(np.unique(text[split])) - {10} for split in splits.SPLITS]
  assert not (held[0] & held[1] | held[0] & held[2] | held[1] & held[2])
  assert held[0] | held[1] | held[2] == set(range(60)) - {10}


def test_order_of_documents_does_not_matter():
  documents = _documents([50] * 30)
  one = splits.split_by_document(documents)
  two = splits.split_by_document(documents[::-1])
  for split in splits.SPLITS:
    np.testing.assert_array_equal(one[split], two[split])


def test_a_large_document_is_left_to_training():
  parts = splits.assign_splits(_documents([10] * 100 + [500]))
  assert any(len(text) == 500 for _, text in parts["train"])


def test_split_by_position():
  content = bytes(range(100))
  text = splits.split_by_position([("only", content)])
  assert text["train"].tobytes() == content[:80]
  assert text["validation"].tobytes() == content[80:90]
  assert text["test"].tobytes() == content[90:]
