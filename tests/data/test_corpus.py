import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from tanbr_jax.data import corpus as corpus_lib
from tanbr_jax.data import domains, splits

CAP, MINIMUM = 64_000, 20_000

COLLECT = (
  "from tanbr_jax.data import corpus;"
  f"print(corpus.collect_corpus({CAP}, {MINIMUM}).fingerprint)"
)


@pytest.fixture(scope="module")
def built_in():
  return corpus_lib.collect_corpus(CAP, MINIMUM)


@pytest.fixture
def few_domains(monkeypatch):
  """Two synthetic domains in place of the built-in ones; counts calls."""
  calls = []

  def collect_domains(cap_bytes, min_bytes):
    calls.append((cap_bytes, min_bytes))
    texts = {
      task: [(f"{task}{i}", f"{task}{i:03d}".encode() * 99) for i in range(50)]
      for task in "uv"
    }
    return texts, ("a message",)

  monkeypatch.setattr(domains, "collect_domains", collect_domains)
  return calls


def _load(cache_dir):
  return corpus_lib.load_corpus(
    cache_dir=cache_dir, cap_bytes=CAP, min_bytes=MINIMUM
  )


def test_built_in_tasks_have_text_in_each_split(built_in):
  assert len(built_in.task_names) == len(domains.DOMAINS)
  for split in splits.SPLITS:
    assert len(built_in.splits[split]) == len(built_in.task_names)
    for text in built_in.splits[split]:
      assert text.dtype == np.uint8 and text.ndim == 1
      assert text.size >= MINIMUM // 10


def test_another_process_collects_the_same(built_in):
  # Another hash seed, so that no order of a set slips into the text.
  environment = {**os.environ, "PYTHONHASHSEED": "123"}
  environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
  process = subprocess.run(
    [sys.executable, "-c", COLLECT],
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  assert process.stdout.strip() == built_in.fingerprint


def test_fingerprint_sees_each_byte_name_and_boundary():
  def tasks(first=b"abcd", second=b"efgh", name="v"):
    text = {s: np.frombuffer(first, np.uint8) for s in splits.SPLITS}
    other = {**text, "test": np.frombuffer(second, np.uint8)}
    return corpus_lib.make_corpus({"u": text, name: other}).fingerprint

  prints = [
    tasks(),
    tasks(second=b"efgi"),
    tasks(name="w"),
    tasks(first=b"abcde", second=b"fgh"),
  ]
  assert len(set(prints)) == 4
  assert tasks() == prints[0]


def test_the_cache_gives_back_the_same_corpus(few_domains, tmp_path):
  one, two = _load(tmp_path), _load(tmp_path)
  assert few_domains == [(CAP, MINIMUM)]
  assert one.messages == two.messages == ("a message",)
  assert one.task_names == two.task_names == ("u", "v")
  assert one.fingerprint == two.fingerprint
  for split in splits.SPLITS:
    for a, b in zip(one.splits[split], two.splits[split], strict=True):
      np.testing.assert_array_equal(a, b)


def test_the_cache_is_keyed_by_what_text_depends_on(
  few_domains, tmp_path, monkeypatch
):
  _load(tmp_path)
  corpus_lib.load_corpus(cache_dir=tmp_path, cap_bytes=CAP, min_bytes=30_000)
  monkeypatch.setattr(corpus_lib, "CODE_VERSION", -1)
  _load(tmp_path)
  assert len(few_domains) == len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_cache_is_rebuilt_with_a_message(
  few_domains, tmp_path, damage, caplog
):
  expected = _load(tmp_path).fingerprint
  (path,) = tmp_path.iterdir()
  content = bytearray(path.read_bytes())
  if damage == "truncate":
    content = content[: len(content) // 2]
  elif damage == "flip":
    content[len(content) // 3] ^= 1
  else:
    content = b""
  path.write_bytes(content)
  rebuilt = _load(tmp_path)
  assert rebuilt.fingerprint == expected
  assert len(caplog.messages) == 1 and str(path) in caplog.messages[0]
  assert caplog.messages[0].endswith("it is made anew")
  assert _load(tmp_path).messages == ("a message",)
  assert len(few_domains) == 2


def test_a_cache_of_other_text_or_key_is_refused(few_domains, tmp_path):
  corpus = corpus_lib.collect_corpus(CAP, MINIMUM)
  path = tmp_path / "x.npz"
  false = dataclasses.replace(corpus, fingerprint="0" * 64)
  corpus_lib.save_corpus(path, false, {"k": 1})
  with pytest.raises(ValueError, match="does not hold what its key says"):
    corpus_lib.read_corpus(path, {"k": 1})
  corpus_lib.save_corpus(path, corpus, {"k": 1})
  assert corpus_lib.read_corpus(path, {"k": 1}).task_names == ("u", "v")
  with pytest.raises(ValueError, match="does not hold what its key says"):
    corpus_lib.read_corpus(path, {"k": 2})


def test_bad_arguments_are_refused_before_work(tmp_path, monkeypatch):
  monkeypatch.setattr(domains, "collect_domains", None)
  with pytest.raises(ValueError, match="got context=0"):
    corpus_lib.load_corpus(tmp_path, context=0)
  with pytest.raises(ValueError, match="min_bytes=500, context=64"):
    corpus_lib.load_corpus(cache_dir=tmp_path, min_bytes=500)
  with pytest.raises(ValueError, match="cap_bytes=100000"):
    corpus_lib.load_corpus(cache_dir=tmp_path, cap_bytes=100_000)


def test_too_few_domains_are_an_error(monkeypatch):
  monkeypatch.setattr(domains, "collect_domains", lambda *_: ({}, ("why",)))
  with pytest.raises(ValueError, match=r"at least 2 .* got 0 \(why\)"):
    corpus_lib.collect_corpus(CAP, MINIMUM)
