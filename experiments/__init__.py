"""Experiments: what is compared, on what, into which files."""

import sys

# `python -m experiments.x` imports this package first, under this name.
if sys.argv[:1] == ["-m"]:
  from experiments.common import signals

  signals.catch_imports()
