"""The regret study by one command on each of two hosts, here two processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tanbr_jax.online import trace
from tanbr_jax.report import workdir as reporting

ROOT = Path(__file__).parents[2]
ARGUMENTS = (
  "--config.num_rounds=12",
  "--config.chunk_size=6",
  "--config.num_seeds=5",
  "--config.families=quadratic",
  "--config.bandits=uniform",
  "--config.baseline=uniform",
  "--config.figures=curves",
  "--config.devices=all",
)


def run(workdir, *arguments):
  env = dict(
    os.environ,
    JAX_PLATFORMS="cpu",
    XLA_FLAGS="--xla_force_host_platform_device_count=2",
    TANBR_JAX_CACHE=str(workdir.parent / "cache"),
  )
  command = [sys.executable, "-m", "experiments.regret", *ARGUMENTS]
  return subprocess.Popen(
    [*command, f"--workdir={workdir}", *arguments],
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.slow  # three commands, each of which imports and draws
def test_two_processes_write_what_one_writes(tmp_path):
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    port = listener.getsockname()[1]
  together, alone = tmp_path / "together", tmp_path / "alone"
  commands = [
    run(
      together,
      "--distributed",
      f"--coordinator=localhost:{port}",
      "--num_processes=2",
      f"--process_id={process}",
    )
    for process in (0, 1)
  ] + [run(alone)]
  printed = [command.communicate(timeout=600) for command in commands]
  for command, (_, error) in zip(commands, printed, strict=True):
    assert command.returncode == 0, error
  # The second is silent, but for what Gloo itself prints.
  first, second, _ = (out.splitlines() for out, _ in printed)
  assert any("expected regret" in line for line in first)
  assert [line for line in second if not line.startswith("[Gloo]")] == []
  names = {path.name for path in together.iterdir()}
  assert names == {path.name for path in alone.iterdir()}
  found, wanted = (
    trace.load(folder / "trace.npz")["quadratic/drift/uniform"]
    for folder in (together, alone)
  )
  np.testing.assert_array_equal(found.seeds, range(5))
  # Other programs: a few roundings.
  np.testing.assert_allclose(
    found.expected_reward, wanted.expected_reward, atol=1e-5
  )
  summary = reporting.read_json(together / "summary.json")
  key = "quadratic/drift/uniform/expected_regret"
  gaps = (found.optimal_reward - found.expected_reward).sum(axis=1)
  np.testing.assert_allclose(summary[key], gaps.mean(), rtol=1e-5)
  # The number of devices and of processes is no part of the run's config.
  again = run(together, "--config.devices=1")
  _, error = again.communicate(timeout=600)
  assert again.returncode == 1
  assert "holds a run of 2 processes, got 1: start as many" in error
