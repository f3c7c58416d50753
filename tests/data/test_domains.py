import pytest

from tanbr_jax.data import domains

CAP = 64_000


def _documents(*sizes):
  def collector():
    for i, size in enumerate(sizes):
      yield f"{i}", f"{i:03d}".encode() * (size // 3)

  return collector


@pytest.fixture(scope="module")
def samples():
  collectors = {**domains.DOMAINS, **domains.SPARES}
  return {n: domains.collect(c, CAP) for n, c in collectors.items()}


def test_domains_are_collected_up_to_the_cap(samples):
  for name, documents in samples.items():
    names = [document for document, _ in documents]
    assert names == sorted(set(names)), name
    assert not any(document.startswith("/") for document in names), name
    assert sum(len(text) for _, text in documents) <= CAP, name
    assert all(b"\0" not in text for _, text in documents), name


def test_domains_hold_the_text_that_they_are_named_for(samples):
  # `numbers`, `stubs`, ... depend on packages; these on CPython and jax only.
  marks = {
    "python": b"import ",
    "doctest": b">>> ",
    "unicode": b"LETTER",
    "mlir": b"func.func",
  }
  for name, mark in marks.items():
    texts = [text for _, text in samples[name]]
    assert sum(len(text) for text in texts) == CAP, name
    assert sum(mark in text for text in texts) > len(texts) // 3, name
  assert all(b">>>" not in text for _, text in samples["prose"])


def test_unicode_lines_leave_out_names_given_by_rule():
  assert domains._unicode_line(0x41) == "0041;LATIN CAPITAL LETTER A;Lu;L;"
  assert domains._unicode_line(0xC5).endswith("Lu;L;0041 030A")
  # A CJK ideograph, a Hangul syllable, a control character without a name.
  assert [domains._unicode_line(c) for c in (0x4E00, 0xAC00, 0)] == [None] * 3


def test_the_cap_is_spread_over_documents():
  # Pieces are 3,200 / 32 = 100 bytes: the first round takes 100 bytes each,
  # the second and later ones go on until 3,200 bytes are taken.
  documents = domains.collect(_documents(9_000, 300, 9_000), 3_200)
  sizes = {name: len(text) for name, text in documents}
  assert sizes == {"0": 1_500, "1": 300, "2": 1_400}


def test_small_and_repeated_documents_are_dropped():
  def collector():
    yield "a", b"x" * 300
    yield "b", b"x" * 300
    yield "c", b"y" * (domains.MIN_DOCUMENT_BYTES - 1)

  assert domains.collect(collector, CAP) == [("a", b"x" * 300)]


def test_reading_stops_at_the_cap():
  def collector():
    for i in range(1_000):
      assert i < 40, "read on although the cap was reached"
      yield f"{i}", f"{i:03d}".encode() * 200

  assert len(domains.collect(collector, 3_200)) == 32


def test_a_small_domain_gives_way_to_the_next_fit_spare():
  big = _documents(*[300] * 20)
  collected, messages = domains.collect_domains(
    100_000,
    5_000,
    domains={"a": big, "b": _documents(300), "c": big, "d": _documents()},
    spares={"s": _documents(6_000), "t": big},
  )
  # s has bytes enough, but one document cannot be dealt to three splits.
  assert list(collected) == ["a", "t", "c"]
  assert messages == (
    "domain 'b': 300 bytes in 1 documents here, needs 5000 bytes in 10",
    "spare domain 's' is unfit: 6000 bytes in 1 documents here, needs 5000 "
    "bytes in 10",
    "spare domain 't' replaces 'b'",
    "domain 'd': 0 bytes in 0 documents here, needs 5000 bytes in 10",
    "domain 'd' is left out: no spare domain is left",
  )
