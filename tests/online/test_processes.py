"""Two processes play one run; `play_in_processes` is each of them."""

import json

import numpy as np
import play_in_processes
import pytest
import toy
from subprocesses import free_port, start

from tanbr_jax.online import chunk_store, rollout, trace

# Chunks that each process has saved when it is killed.
KILLED = (0, 2)


def start_both(folder, *more):
  """Starts both processes, each with one of the further arguments, if any."""
  port = free_port()
  return [
    start("play_in_processes.py", port, process, folder, *more[process:][:1])
    for process in (0, 1)
  ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Where both were killed, each after another chunk, and started again."""
  folder = tmp_path_factory.mktemp("processes")
  both = start_both(folder, *KILLED)
  for one in both:
    assert "saved\n" in iter(one.stdout.readline, "")
  for one in both:
    one.kill()
    one.communicate()
  saved = [
    len(list((folder / f"run/checkpoints/tanbr/{name}").glob("chunk_*")))
    for name in ("process_0_of_2", "process_1_of_2")
  ]
  assert saved == [chunk + 1 for chunk in KILLED]
  for one in start_both(folder):
    output, _ = one.communicate(timeout=300)
    assert one.returncode == 0, output
  return folder


@pytest.fixture(scope="module")
def found(folder):
  return [
    json.loads((folder / f"{process}.json").read_text()) for process in (0, 1)
  ]


def test_both_return_the_trace_of_all_seeds(folder):
  first, second = (
    trace.to_arrays(trace.load(folder / f"{process}.npz")["run"])
    for process in (0, 1)
  )
  assert first.keys() == second.keys()
  for name, array in first.items():
    assert array.dtype == second[name].dtype
    assert array.tobytes() == second[name].tobytes(), name
  alone = rollout.run(
    toy.bandit(), toy.environment(), **play_in_processes.RUN, progress=False
  )
  np.testing.assert_array_equal(first["seeds"], alone.seeds)
  np.testing.assert_array_equal(first["task_count"], alone.task_count)
  # Other numbers of seeds and threads, hence other programs: a few roundings.
  np.testing.assert_allclose(
    first["merge_weights"], alone.merge_weights, atol=1e-5
  )


def test_each_went_on_from_its_own_last_chunk(folder):
  """A chunk that compiles has no time; of two times the longer one counts."""
  seconds = trace.load(folder / "0.npz")["run"].seconds
  firsts = {0} | {chunk + 1 for chunk in KILLED}
  assert set(np.flatnonzero(np.isnan(seconds))) == firsts


def test_the_first_alone_writes_the_metrics_of_all(folder):
  lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
  entries = [json.loads(line) for line in lines]
  assert [entry["chunk"] for entry in entries] == [0, 1, 2, 3]
  played = trace.load(folder / "0.npz")["run"]
  regret = np.sum(played.optimal_reward - played.expected_reward, axis=1)
  assert entries[-1]["expected_regret"] == pytest.approx(
    regret.mean(), rel=1e-5
  )


def test_what_differs_is_refused_by_both(found):
  for theirs in found:
    assert theirs["rounds"] == (
      "tanbr: all processes must play the same, got by process "
      "num_rounds=[20, 21]"
    )
    assert theirs["config"].endswith("config.noise=[0.0, 0.1]")
    assert not theirs["made"]
    assert theirs["few"] == (
      "there must be at least one seed for each process, got 1 seeds, "
      "2 processes"
    )


def test_where_one_fails_both_do(found):
  error = "[Errno 28] No space left on device: 'chunk.npz'"
  assert found[0]["failed"] == f"process 1: {error}"
  assert found[1]["failed"] == error


def test_arrays_are_gathered_in_their_own_types(found):
  for theirs in found:
    assert theirs["gathered"] == [
      {"x": [0.0, 1 / 3], "y": [[0, 0]]},
      {"x": [0.0, 1 / 3, 2 / 3], "y": [[1, 1]]},
    ]


def test_another_number_of_processes_is_refused(folder):
  with pytest.raises(ValueError) as error:
    rollout.run(
      toy.bandit(),
      toy.environment(),
      **play_in_processes.RUN,
      progress=False,
      workdir=folder / "run",
    )
  message = (
    "holds a run of 2 processes, got 1: start as many, or choose another"
  )
  assert message in str(error.value) and "\n" not in str(error.value)


def test_chunks_of_one_process_are_not_those_of_several(tmp_path):
  chunk_store.ChunkStore(tmp_path, "run", run_id="a", num_chunks=1)
  (tmp_path / "checkpoints" / "run" / "chunk_000000.npz").write_bytes(b"")
  with pytest.raises(ValueError, match="a run of 1 processes, got 2: start as"):
    chunk_store.ChunkStore(
      tmp_path, "run", run_id="a", num_chunks=1, num_processes=2
    )
