"""Experts over devices. A process of its own, as devices are counted once."""

import os
import pathlib
import subprocess
import sys

import hf_folders
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tanbr_jax import models

pytestmark = pytest.mark.slow

HERE = pathlib.Path(__file__).parent


def test_eight_devices_compute_what_one_does(tmp_path):
  flags = os.environ.get("XLA_FLAGS", "")
  flags += " --xla_force_host_platform_device_count=8"
  env = {
    **os.environ,
    "XLA_FLAGS": flags,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(HERE.parents[2]),
  }
  done = subprocess.run(
    [sys.executable, HERE / "spread_script.py", tmp_path / "one"],
    env=env,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr


def test_refuses_a_sharding_that_cannot_be(tmp_path):
  folder = hf_folders.write(tmp_path / "one", "mixtral")
  mesh = Mesh(np.array(jax.devices()[:1]), ("experts",))
  sharding = NamedSharding(mesh, PartitionSpec(None, "experts"))
  with pytest.raises(ValueError, match="must spread the first axis"):
    models.from_pretrained(folder, sharding=sharding)
