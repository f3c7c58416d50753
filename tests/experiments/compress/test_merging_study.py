"""The study's merging methods: tables by hand, and one small run."""

import types

import jax
import numpy as np
import pytest

from configs.compress import quick
from experiments.compress import merging_rows, merging_tables, settings, tables
from experiments.compress.measures import Bench
from experiments.compress.stages import WHOLE, Study
from tanbr_jax import data, models

pytestmark = pytest.mark.slow


def row(seed, form, method, variant, loss, size=1000, **more):
  return {
    "seed": seed,
    "form": form,
    "method": method,
    "variant": variant,
    "loss": loss,
    "accuracy": 1 - loss / 4,
    "expert_bytes": size,
    **more,
  }


ROWS = [
  row(0, "one block", WHOLE, "plain", 1.0),
  row(1, "one block", WHOLE, "plain", 2.0),
  row(0, "one block", "average", "plain", 1.5, 250),
  row(1, "one block", "average", "plain", 2.7, 250),
  row(0, "one block", "average", "scaled", 1.4, 250),
  row(1, "one block", "average", "scaled", 2.4, 250),
  row(0, "one block", "ream", "aligned", 1.1, 250),
  row(1, "one block", "ream", "aligned", 2.1, 250),
  row(0, "groups", "ream", "not trained", 1.1, 500),
  row(1, "groups", "ream", "not trained", 2.1, 500),
  row(0, "groups", "ream", "trained: all", 0.9, 500),
  row(1, "groups", "ream", "trained: all", 1.9, 500),
]


def test_gaps_are_to_the_routed_model_of_the_same_seed():
  summary = merging_tables.entries(ROWS)
  key = "merging/one block/average/plain/loss_change"
  np.testing.assert_allclose(summary[key], (0.5 + 0.7) / 2)
  # Student's quantile of one degree of freedom is 12.706; the error is 0.1.
  np.testing.assert_allclose(summary[f"{key}_high"], 0.6 + 1.2706, rtol=1e-4)
  np.testing.assert_allclose(
    summary["merging/one block/ream/aligned/accuracy_change"], -0.1 / 4
  )


def test_tables_have_the_best_first_and_name_the_bytes():
  made = merging_tables.parts(merging_tables.entries(ROWS), tables.cell)
  text = "\n".join(made)
  assert "one block (25.0% of the experts' bytes): rise of the loss" in text
  assert text.index("| ream | - | 0.100 [0.100, 0.100] |") < text.index(
    "| average | 0.600"
  )
  last = made[-1].splitlines()
  assert last[-1] == (
    "| ream | groups | 0.100 [0.100, 0.100] | - | -0.100 [-0.100, -0.100] |"
  )
  assert merging_tables.parts({}, tables.cell) == []


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"methods": "avrage"}, "unknown method 'avrage', did you mean 'average'"),
    ({"recovery_rate": 0.0}, "merging.recovery_rate must be .* got"),
    ({"recovery_steps": -1}, "merging.recovery_steps must be"),
  ],
)
def test_a_section_is_refused_before_any_work(change, message):
  config = quick.get_config()
  config.merging.update(change)
  with pytest.raises(ValueError, match=message) as error:
    settings.read(config)
  assert "\n" not in str(error.value)


# All programs of the stage for a model of its own.
@pytest.mark.slow
def test_a_run_of_the_stage():
  model = models.Decoder(models.preset("tiny", context=16))
  params = jax.jit(model.init)(jax.random.key(0))
  draws = np.random.default_rng(0)
  text = data.from_arrays(
    [draws.integers(0, 64, 90).astype(np.uint8) for _ in range(2)],
    min_length=13,
  )
  windows = data.evaluation_windows(text, 3, 13)
  bench = Bench(model, params, ("a", "b"), windows, windows[:, :2, :8], 3, None)
  bench = bench._replace(said=np.zeros((2, 2, 3), np.int32))
  merging = types.SimpleNamespace(
    methods=["average", "m_smoe", "ream"],
    recovery_methods=["average"],
    recovery_steps=2,
    recovery_rate=1e-3,
  )
  found = types.SimpleNamespace(
    merging=merging, calibration_windows=3, batch_size=3, max_samples=32
  )
  study = Study(found, bench, text, None)
  rows = merging_rows.rows(study, 0, lambda: None)
  # The whole model; three methods in four ways, in two forms; shuffled twice
  # and REAM as published, in two forms; beside them two. Trained: the whole
  # model twice; of the average those that are not, the block, the groups twice.
  assert len(rows) == 1 + 24 + 6 + 2 + 2 + 2 + 1 + 2
  by_name = {(r["form"], r["method"], r["variant"]): r for r in rows}
  assert len(by_name) == len(rows)
  dense, merged = models.merge(model, params, jax.numpy.full(4, 0.25))
  wanted = models.score(dense, merged, windows.reshape(-1, 13))
  np.testing.assert_allclose(
    by_name["one block", "average", "plain"]["loss"],
    np.mean(wanted.loss),
    rtol=1e-5,
  )
  assert all(np.isfinite(r["loss"]) and 0 <= r["match"] <= 1 for r in rows)
