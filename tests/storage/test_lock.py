import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from tanbr_jax.storage import lock


@pytest.fixture
def told(monkeypatch):
  """Lines of the log; no waiting longer than a test may take."""
  lines = []
  monkeypatch.setattr(
    lock.logging, "warning", lambda text, *args: lines.append(text % args)
  )
  for name, seconds in (("SILENCE", 0.1), ("UNREADABLE", 0.05), ("POLL", 0.01)):
    monkeypatch.setattr(lock, name, seconds)
  return lines


@pytest.fixture
def other():
  """A process that lives until the test ends."""
  process = subprocess.Popen(["sleep", "60"])
  yield process
  process.kill()
  process.wait()


def _lock_of(path, pid, **changes):
  """Writes the lock that another process of this machine would write."""
  mine = lock._me() | {"pid": pid, "began": lock._process(pid)[1]}
  (path / lock.NAME).write_text(json.dumps(mine | changes))


def test_one_process_may_hold_a_folder_many_times(tmp_path):
  folder = tmp_path / "a" / "b"
  with lock.hold_folder(folder), lock.hold_folder(folder):
    owner = json.loads((folder / lock.NAME).read_text())
    assert owner["pid"] == os.getpid()
    lock.verify(folder)
  assert list(folder.iterdir()) == []


def test_a_living_process_is_refused_by_name(tmp_path, told, other):
  _lock_of(tmp_path, other.pid, host="there", since="noon", command="x y")
  before = (tmp_path / lock.NAME).read_bytes()
  with pytest.raises(ValueError) as error:
    lock.hold_folder(tmp_path).__enter__()
  assert str(error.value) == (
    f"{tmp_path} is in use by process {other.pid} on host there since noon "
    "(x y)"
  )
  assert (tmp_path / lock.NAME).read_bytes() == before and told == []


def test_locks_of_processes_that_are_gone_are_taken_over(tmp_path, told, other):
  gone = subprocess.Popen(["true"])
  gone.wait()
  # Killed; its number given to another process; a zombie.
  zombie = subprocess.Popen(["true"])
  while lock._process(zombie.pid)[0]:
    time.sleep(0.01)
  for pid, changes in (
    (gone.pid, {}),
    (other.pid, {"began": "1"}),
    (zombie.pid, {}),
  ):
    _lock_of(tmp_path, pid, **changes)
    with lock.hold_folder(tmp_path):
      lock.verify(tmp_path)
      assert f'"pid": {os.getpid()}' in (tmp_path / lock.NAME).read_text()
    assert list(tmp_path.iterdir()) == []
  zombie.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "1"}'])
def test_a_lock_that_names_nobody_is_taken_over(text, tmp_path, told):
  (tmp_path / lock.NAME).write_text(text)
  with lock.hold_folder(tmp_path):
    lock.verify(tmp_path)


def test_a_holder_elsewhere_is_known_by_its_touches(
  tmp_path, told, other, monkeypatch
):
  _lock_of(tmp_path, other.pid, machine="elsewhere", host="there")
  look = lock._read

  def touched(path):
    os.utime(path)
    return look(path)

  with monkeypatch.context() as patch:
    patch.setattr(lock, "_read", touched)
    with pytest.raises(ValueError, match="in use by process .* on host there"):
      lock.hold_folder(tmp_path).__enter__()
  assert len(told) == 1 and "looking for up to 0 s" in told[0]
  # Without any, it is gone.
  with lock.hold_folder(tmp_path):
    lock.verify(tmp_path)


def test_a_held_lock_is_touched(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, "BEAT", 0.01)
  with lock.hold_folder(tmp_path):
    os.utime(tmp_path / lock.NAME, (0, 0))
    end = time.monotonic() + 10
    while os.stat(tmp_path / lock.NAME).st_mtime == 0:
      assert time.monotonic() < end
      time.sleep(0.01)


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path, told, other):
  """Four processes take over the same lock; each adds to a file alone."""
  work = """
import importlib.util, sys, time
# The module alone: the package around it takes seconds to import.
spec = importlib.util.spec_from_file_location("lock", sys.argv[2])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
lock.POLL = 0.005
for _ in range(10):
  with lock.hold(sys.argv[1] + "/x.lock", what="x", wait=True):
    with open(sys.argv[1] + "/count", "r+") as file:
      count = int(file.read())
      time.sleep(0.001)
      file.seek(0)
      file.write(str(count + 1))
"""
  (tmp_path / "count").write_text("0")
  owner = lock._me() | {"pid": other.pid, "began": "1"}
  (tmp_path / "x.lock").write_text(json.dumps(owner))
  jobs = [
    subprocess.Popen([sys.executable, "-c", work, tmp_path, lock.__file__])
    for _ in range(4)
  ]
  assert [job.wait(100) for job in jobs] == [0] * 4
  assert (tmp_path / "count").read_text() == "40"
  assert [x.name for x in tmp_path.iterdir()] == ["count"]


def test_threads_wait_for_each_other_and_say_so(tmp_path, told):
  path, order = tmp_path / "entry.lock", []

  def work():
    with lock.hold(path, what="entry", wait=True):
      order.append("second")

  with lock.hold(path, what="entry", wait=True):
    thread = threading.Thread(target=work)
    thread.start()
    while not told:
      time.sleep(0.01)
    order.append("first")
  thread.join()
  assert order == ["first", "second"] and not path.exists()
  assert told[0].startswith(f"waiting for process {os.getpid()} on host ")
  assert told[0].endswith(", which makes entry")


def test_a_folder_that_was_removed_or_taken_is_told(tmp_path, other):
  folder = tmp_path / "run"
  with lock.hold_folder(folder):
    _lock_of(folder, other.pid)
    with pytest.raises(ValueError, match=f"process {other.pid} .*took it over"):
      lock.verify(folder)
  assert (folder / lock.NAME).exists()  # the other's is left
  shutil.rmtree(folder)
  with lock.hold_folder(folder):
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="run is not this run's .*was removed"):
      lock.verify(folder)
    with lock.hold_folder(folder):  # made again under the same name
      lock.verify(folder)


def test_what_is_kept_ends_with_its_scope(tmp_path):
  with lock.scope():
    lock.keep(lock.hold_folder(tmp_path))
    assert (tmp_path / lock.NAME).exists()
  assert not (tmp_path / lock.NAME).exists()
