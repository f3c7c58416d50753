"""The stage "headroom": shares by hand, a search that lowers the loss."""

import types

import jax
import numpy as np
import pytest

from experiments.compress import headroom, measures, tables
from experiments.compress.stages import WHOLE
from tanbr_jax import models


def test_kept_shares_are_means_over_layers():
  """Layer 0 keeps 3 of 4 pairs and 1.5 of 2 gates; layer 1 2 of 8 and .5."""
  statistics = types.SimpleNamespace(
    num_experts=3,
    num_pairs=np.array([[1, 2, 1], [2, 5, 1]]),
    normalised_gates=np.array([[0.5, 1.0, 0.5], [0.5, 1.0, 0.5]]),
  )
  found = headroom.kept_shares(statistics, [[0, 1], [0]])
  assert found == {
    "pairs_kept": (0.75 + 0.25) / 2,
    "gates_kept": (0.75 + 0.25) / 2,
  }
  whole = headroom.kept_shares(statistics, None)
  assert whole == {"pairs_kept": 1.0, "gates_kept": 1.0}


def test_changes_are_from_the_untrained_whole_model():
  rows = [
    {"method": m, "trained": t, "loss_in": loss, "accuracy_in": 1 - loss}
    for m, t, loss in ((WHOLE, "-", 0.5), ("peu", "-", 0.75), (WHOLE, "all", 0))
  ]
  rows = [row | {"seed": 0, "domain": "a"} for row in rows]
  found = tables.to_changes(rows)
  assert [row["loss_in_change"] for row in found] == [0, 0.25, -0.5]
  assert [row["accuracy_in_change"] for row in found] == [0, -0.25, 0.5]


# It compiles a loop of scores: ten seconds.
@pytest.mark.slow
def test_swaps_lower_the_loss_and_keep_the_number():
  model = models.Decoder(models.preset("tiny", context=16))
  params = jax.jit(model.init)(jax.random.key(0))
  windows = np.random.default_rng(0).integers(0, 64, (3, 13)).astype(np.uint8)
  bench = measures.Bench(model, params, ("a",), windows[None], None, 0, None)
  start = [np.array([0, 1])] * len(model.config.moe_layers)
  found = headroom.search(bench, start, windows, num_steps=30, seed=0)
  assert [len(ids) for ids in found] == [2] * len(start)
  before = measures.evaluate(bench, start).loss[0]
  assert measures.evaluate(bench, found).loss[0] < before - 1e-4
  again = headroom.search(bench, start, windows, num_steps=0, seed=0)
  assert [ids.tolist() for ids in again] == [[0, 1]] * len(start)
