"""The devices that a config asks for; the others' own tests play on them."""

import jax
import pytest

from configs.regret import quick
from experiments.common import launch, records


def settings(devices):
  config = quick.get_config()
  config.devices = devices
  return records.read(records.RunSettings, config)


def test_devices_of_this_machine():
  assert settings("1").mesh is None
  assert list(settings("all").mesh.devices) == jax.local_devices()


@pytest.mark.parametrize(
  "devices, message",
  [
    ("0", "devices must be 'all' or a positive number, got devices='0'"),
    ("some", "must be 'all' or a positive number, got devices='some'"),
    ("1000", "devices must be at most [0-9]+, those of this machine, got 1000"),
  ],
)
def test_other_devices_are_refused(devices, message):
  with pytest.raises(ValueError, match=message):
    settings(devices)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (
      {"coordinator": "a:1", "num_processes": 2},
      "go together, got coordinator='a:1', num_processes=2, process_id=None",
    ),
    (
      {"coordinator": "a:1", "num_processes": 2, "process_id": 2},
      "process_id must be in .*, got process_id=2, num_processes=2",
    ),
    # Nothing here tells JAX of other processes.
    ({}, "the processes do not find each other: "),
  ],
)
def test_processes_that_do_not_fit_are_refused(arguments, message, monkeypatch):
  def initialize(*given):
    assert given == (None, None, None)
    raise ValueError("coordinator_address should be defined.")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  with pytest.raises(ValueError, match=message) as error:
    launch.join_processes(True, **arguments)
  assert "\n" not in str(error.value)


def test_one_process_is_the_first():
  assert launch.join_processes(False)
  with pytest.raises(ValueError, match="process_id need --distributed"):
    launch.join_processes(False, process_id=1)
