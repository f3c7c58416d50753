"""Milliseconds of one decision, on one core, and how far from optimal it is.

  taskset -c 0 python -m experiments.wireless.decision_time --repeats=50

Drawn layers of 64 tokens: 8 experts with K = 1 and K = 2, 32 with K = 4, under
the radio of the paper's three set-ups. Of the first `--proofs` of each, HiGHS
finds its own bound within `--seconds`. Prints one JSON object a case.
"""

import json
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from configs.wireless import quick
from experiments.common import launch
from experiments.wireless import decisions, settings


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    found = settings.read(quick.get_config())
    for shape in decisions.DRAWN:
      rng = np.random.default_rng(0)
      layers = [
        decisions.drawn_layer(rng, found, *shape)
        for _ in range(flags.FLAGS.repeats)
      ]
      row = decisions.timed(f"{shape[0]} experts, K={shape[1]}", layers)
      gaps = [
        decisions.proven_gap(layer, most_seconds=flags.FLAGS.seconds)
        for layer in layers[: flags.FLAGS.proofs]
      ]
      if gaps:
        row |= {"proofs": len(gaps), "largest_proven_gap": max(gaps)}
      print(json.dumps(row), flush=True)


if __name__ == "__main__":
  flags.DEFINE_integer("repeats", 50, "Layers of each case.")
  flags.DEFINE_integer("proofs", 0, "How many of them HiGHS bounds too.")
  flags.DEFINE_float("seconds", 10.0, "Of one such proof.")
  app.run(main)
