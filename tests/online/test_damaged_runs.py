"""A run whose files were damaged ends with the same bits or in a line."""

import json
import shutil

import jax
import numpy as np
import pytest
import toy

from tanbr_jax.online import chunk_store, rollout, trace

RUN = {"num_rounds": 23, "seeds": (3, 7), "chunk_size": 6, "progress": False}
CHUNKS = [f"chunk_{index:06d}.npz" for index in range(4)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A finished run's folder and its trace."""
  folder = tmp_path_factory.mktemp("finished")
  return folder, play(folder)


@pytest.fixture
def told(monkeypatch):
  lines = []
  monkeypatch.setattr(
    chunk_store.logging, "warning", lambda text, *a: lines.append(text % a)
  )
  return lines


@pytest.fixture
def folder(finished, tmp_path):
  """A copy of the finished run's folder."""
  shutil.copytree(finished[0], tmp_path / "run")
  return tmp_path / "run"


def play(folder, **changes):
  return rollout.run(
    toy.bandit(), toy.environment(), workdir=folder, **(RUN | changes)
  )


def same_bits(one, other):
  one, other = trace.to_arrays(one), trace.to_arrays(other)
  return all(
    one[name].tobytes() == other[name].tobytes()
    for name in one.keys() - {"seconds"}
  )


def damages(content, rng):
  """Cut at several lengths, and with a bit flipped in several places."""
  sizes = (0, 1, 40, len(content) // 2, len(content) - 1)
  yield from (content[:size] for size in sizes)
  for place in rng.integers(0, 8 * len(content), 6):
    flipped = bytearray(content)
    flipped[place // 8] ^= 1 << place % 8
    yield bytes(flipped)


@pytest.mark.parametrize(
  "name", ["carry.npz", CHUNKS[0], CHUNKS[2], CHUNKS[3], "metrics.jsonl"]
)
def test_a_damaged_file_costs_a_line(name, folder, finished, told):
  whole = {x: x.read_bytes() for x in folder.rglob("*") if x.is_file()}
  (path,) = (x for x in whole if x.name == name)
  metrics = sorted((folder / "metrics.jsonl").read_text().splitlines())
  rng = np.random.default_rng(len(name))
  for number, content in enumerate(damages(whole[path], rng)):
    told.clear()
    path.write_bytes(content)
    assert same_bits(play(folder), finished[1]), number
    assert len(told) <= 1 and all(name in line for line in told), number
    # What was cut is told; a flipped bit may lie in what no one reads.
    assert told or number >= 5 or name == "metrics.jsonl"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [x["chunk"] for x in sorted_entries(lines)] == [0, 1, 2, 3]
    if name == "metrics.jsonl":
      assert sorted(lines) == metrics
    told.clear()
    play(folder)
    assert told == []  # mended
    for other, bytes_before in whole.items():
      other.write_bytes(bytes_before)


def sorted_entries(lines):
  return sorted(map(json.loads, lines), key=lambda entry: entry["chunk"])


def test_a_run_goes_on_from_the_chunk_before_a_damaged_one(
  folder, finished, told, monkeypatch
):
  inner = folder / "checkpoints" / "tanbr"
  played = []
  timed = rollout._timed_chunk
  monkeypatch.setattr(
    rollout,
    "_timed_chunk",
    lambda *args, **kw: played.append(kw["start"]) or timed(*args, **kw),
  )
  (inner / CHUNKS[2]).write_bytes(b"")
  assert same_bits(play(folder), finished[1]) and played == [12, 18]
  assert len(told) == 1 and told[0].endswith("the run goes on from chunk 2")
  # Without any state but the last, from the beginning.
  monkeypatch.setattr(chunk_store, "MOST_STATE_BYTES", 0)
  shutil.rmtree(folder)
  play(folder)
  played.clear()
  (inner / CHUNKS[2]).unlink()
  assert same_bits(play(folder), finished[1]) and played == [0, 6, 12, 18]
  assert told[1].endswith(
    f"{CHUNKS[2]} is missing: the run goes on from chunk 0"
  )
  # A carry that is gone, and with it all that a kill would leave.
  (inner / "carry.npz").unlink()
  assert same_bits(play(folder), finished[1]) and len(told) == 2


def test_files_of_another_run_are_not_taken(folder, finished, told):
  inner = folder / "checkpoints"
  play(folder, name="other")
  shutil.copy(inner / "other" / CHUNKS[1], inner / "tanbr" / CHUNKS[1])
  assert same_bits(play(folder), finished[1])
  assert len(told) == 1 and f"{CHUNKS[1]} is of another run, 'other'" in told[0]
  shutil.copy(inner / "tanbr" / CHUNKS[3], inner / "tanbr" / CHUNKS[1])
  assert same_bits(play(folder), finished[1])
  assert f"{CHUNKS[1]} holds chunk 3: the run goes on from chunk 1" in told[1]
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  names = [json.loads(line)["run"] for line in lines]
  assert sorted(names) == ["other"] * 4 + ["tanbr"] * 4


def test_lines_that_are_no_records_are_left_out(folder, finished, told):
  path = folder / "metrics.jsonl"
  lines = path.read_text().splitlines()
  junk = ["3", "[]", "null", "", '{"run": "tanbr"}', "\udcff", lines[0][:-1]]
  text = "\n".join([*junk, *lines, lines[1]])
  path.write_bytes(text.encode(errors="surrogateescape"))
  assert same_bits(play(folder), finished[1])
  assert path.read_text().splitlines() == lines
  assert told == [f"{path}: {len(junk)} damaged lines left out"]


@pytest.mark.parametrize(
  "setting, changed",
  [
    ("jax_default_prng_impl", "rbg"),
    ("jax_threefry_partitionable", False),
    ("jax_default_matmul_precision", "float32"),
  ],
)
def test_other_numerics_are_refused(setting, changed, folder):
  before = {x: x.read_bytes() for x in folder.rglob("*") if x.is_file()}
  was = getattr(jax.config, setting)
  jax.config.update(setting, changed)
  try:
    with pytest.raises(ValueError, match="other settings of JAX: ") as error:
      play(folder)
  finally:
    jax.config.update(setting, was)
  assert f"{setting}={was!r} there, {changed!r} here" in str(error.value)
  assert "\n" not in str(error.value)
  assert before == {x: x.read_bytes() for x in folder.rglob("*") if x.is_file()}


def test_a_folder_that_is_lost_while_a_run_plays(tmp_path, monkeypatch):
  folder, inner = tmp_path / "run", "checkpoints/tanbr"
  save = chunk_store.ChunkStore.save

  def disturbed(disturb, error):
    def save_then(self, index, *rest):
      if index == 2:
        disturb()
      save(self, index, *rest)

    monkeypatch.setattr(chunk_store.ChunkStore, "save", save_then)
    with pytest.raises((ValueError, OSError)) as found:
      play(folder)
    assert error in str(found.value) and str(folder) in str(found.value)
    assert "\n" not in str(found.value)
    monkeypatch.setattr(chunk_store.ChunkStore, "save", save)

  def full(*unused):
    raise OSError(28, "No space left on device")

  # Removed: nothing is made in its place.
  disturbed(lambda: shutil.rmtree(folder), "run is not this run's folder any")
  assert not folder.exists()
  # A folder in a file's place.
  disturbed(lambda: (folder / inner / CHUNKS[2]).mkdir(), "Is a directory")
  (folder / inner / CHUNKS[2]).rmdir()
  # A full disk.
  with monkeypatch.context() as patch:
    disturbed(
      lambda: patch.setattr(chunk_store.atomic.os, "fsync", full), "spa"
    )
  again = play(folder)
  assert np.isnan(again.seconds[2]) and not np.isnan(again.seconds[1])
  assert not (folder / ".lock").exists()
