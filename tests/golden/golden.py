"""Golden traces: what a fixed run gave, and whether it still gives that.

A trace is a dict of arrays in an npz of its own. On the jax version and the
processor that it was recorded with it must come again to the bit; elsewhere to
1e-5, as other versions add in other orders. After a change that is meant,
record anew with

  RECORD_GOLDEN=1 pytest tests/golden

and say in the commit which traces changed and why.
"""

import hashlib
import os
import pathlib
import re

import jax
import numpy as np

FOLDER = pathlib.Path(__file__).parent


def _provenance():
  """What bits may depend on: jax's version and the processor's abilities."""
  cpu = pathlib.Path("/proc/cpuinfo")
  flags = re.search("^flags.*$", cpu.read_text() if cpu.exists() else "", re.M)
  digest = hashlib.sha256((flags[0] if flags else "").encode()).hexdigest()
  return f"jax {jax.__version__}, cpu {digest[:12]}"


def check(name, trace):
  """Compares a trace with the recorded one; see the module."""
  path = FOLDER / f"{name}.npz"
  if os.environ.get("RECORD_GOLDEN"):
    np.savez_compressed(path, recorded_with=_provenance(), **trace)
  with np.load(path) as golden:
    assert set(golden.files) == {"recorded_with", *trace}
    same_machine = str(golden["recorded_with"]) == _provenance()
    tolerance = 0 if same_machine else 1e-5
    for field, found in trace.items():
      np.testing.assert_allclose(
        found, golden[field], rtol=0, atol=tolerance, err_msg=field
      )
