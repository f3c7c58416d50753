"""Starts the scripts of these tests in processes of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def start(script, *arguments, **variables):
  """A process of a script in this folder, whose output can be read."""
  env = dict(os.environ, JAX_PLATFORMS="cpu", **variables)
  env["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
  command = [sys.executable, str(Path(__file__).with_name(script))]
  return subprocess.Popen(
    command + [str(argument) for argument in arguments],
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def free_port():
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]
