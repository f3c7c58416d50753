"""Parts a task's documents into training, validation and test text."""

from collections.abc import Sequence

import numpy as np

from tanbr_jax.data.sources import Document, name_key

SPLITS = ("train", "validation", "test")
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}

SplitText = dict[str, np.ndarray]


def _join(texts: Sequence[bytes]) -> np.ndarray:
  return np.frombuffer(b"\n".join(texts), np.uint8)


def _take(
  documents: list[Document], wanted: float
) -> tuple[list[Document], list[Document]]:
  """Takes documents until they hold the wanted bytes; returns also the rest.

  Documents that overshoot by more than a quarter are taken only if the
  smaller ones do not suffice.
  """
  taken, size = [], 0
  for most in (1.25 * wanted, float("inf")):
    rest = []
    for name, text in documents:
      fits = size < wanted and size + len(text) <= most
      (taken if fits else rest).append((name, text))
      size += len(text) if fits else 0
    documents = rest
  return taken, documents


def assign_splits(documents: Sequence[Document]) -> dict[str, list[Document]]:
  """Deals documents to the splits in the order of their names' hashes.

  Test and validation text are filled until each holds its share of the bytes;
  the rest is training text. Hence test text has at least its share, and
  validation text too unless the documents run out.

  Args:
    documents: (name, text) pairs with distinct names, in any order.

  Returns:
    A dict from each of `SPLITS` to its documents; together they are all.
  """
  ordered = sorted(documents, key=lambda document: name_key(document[0]))
  total = sum(len(text) for _, text in ordered)
  test, ordered = _take(ordered, SHARES["test"] * total)
  validation, train = _take(ordered, SHARES["validation"] * total)
  return {"train": train, "validation": validation, "test": test}


def split_by_document(documents: Sequence[Document]) -> SplitText:
  """Joins each split's documents with line ends: no document is in two.

  Args:
    documents: (name, text) pairs with distinct names.

  Returns:
    A dict from each of `SPLITS` to [N] uint8 text.
  """
  parts = assign_splits(documents)
  return {split: _join([text for _, text in parts[split]]) for split in SPLITS}


def split_by_position(documents: Sequence[Document]) -> SplitText:
  """Cuts the joined documents: the first 80 % train, then 10 % and 10 %.

  Args:
    documents: (name, text) pairs, joined in this order.

  Returns:
    A dict from each of `SPLITS` to [N] uint8 text.
  """
  text = _join([text for _, text in documents])
  first = round(SHARES["train"] * text.size)
  second = first + (text.size - first) // 2
  cuts = (text[:first], text[first:second], text[second:])
  return dict(zip(SPLITS, cuts, strict=True))
