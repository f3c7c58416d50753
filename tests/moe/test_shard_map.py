import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("on_eight_devices.py")


@pytest.mark.parametrize(
  "name", ["layers", pytest.param("everything", marks=pytest.mark.slow)]
)
def test_runs_on_eight_devices_as_on_one(name):
  # A process of its own: the number of devices is fixed when JAX begins.
  flags = os.environ.get("XLA_FLAGS", "")
  flags += " --xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, str(SCRIPT), name],
    cwd=SCRIPT.parents[2],
    env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": "."},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
