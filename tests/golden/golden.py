"""Golden traces: what a fixed run gave, and whether it still gives that.

A trace is a dict of arrays [1, T, ...] in an npz of its own. On the jax version
and the processor that it was recorded with it must come again to the bit;
elsewhere to 1e-5, as other versions add in other orders. A bandit that ascends
a score that it has fitted amplifies such roundings from round to round: of
lin_ucb, XLA's options alone move weights by 1e-3 after ten rounds and by .1
after a hundred, and means over the rounds by .02 (weights) and .0014 (rewards;
jax 0.10.2 and 0.12). Elsewhere, five rounds of such a bandit come again to
1e-3, and all to what `MEANS` allows. After a change that is meant, record anew
with

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
# How far means over the rounds may be from the recorded ones elsewhere.
MEANS = {"merge_weights": 5e-2, "expected_reward": 5e-3}


def _provenance():
  """What bits may depend on: jax's version and the processor's abilities."""
  cpu = pathlib.Path("/proc/cpuinfo")
  flags = re.search("^flags.*$", cpu.read_text() if cpu.exists() else "", re.M)
  digest = hashlib.sha256((flags[0] if flags else "").encode()).hexdigest()
  return f"jax {jax.__version__}, cpu {digest[:12]}"


def check(name, trace, *, ascends):
  """Compares a trace with the recorded one; see the module.

  Args:
    name: of the file.
    trace: field -> [1, T, ...].
    ascends: whether the bandit ascends a score that it has fitted.
  """
  path = FOLDER / f"{name}.npz"
  if os.environ.get("RECORD_GOLDEN"):
    np.savez_compressed(path, recorded_with=_provenance(), **trace)
  with np.load(path) as golden:
    assert set(golden.files) == {"recorded_with", *trace}
    is_here = str(golden["recorded_with"]) == _provenance()
    for field, found in trace.items():
      if is_here or not ascends:
        _compare(field, found, golden[field], 0 if is_here else 1e-5)
      else:
        _compare(field, found[:, :5], golden[field][:, :5], 1e-3)
        _compare(field, found.mean(1), golden[field].mean(1), MEANS[field])


def _compare(field, found, expected, tolerance):
  np.testing.assert_allclose(
    found, expected, rtol=0, atol=tolerance, err_msg=field
  )
