"""The compression study: its parts by hand, its tables from files alone."""

import json

import numpy as np
import pytest
import scipy.stats

from configs.compress import quick
from experiments.compress import (
  decode,
  measures,
  methods,
  settings,
  stages,
  study,
  tables,
  truth,
)
from tanbr_jax import models
from tanbr_jax.storage import atomic


def lists(keep):
  return [ids.tolist() for ids in keep]


def test_rank_correlations_are_scipys():
  """With ties; nothing can be said of scores that are all the same."""
  rng = np.random.default_rng(0)
  ours, theirs = rng.integers(0, 4, (2, 3, 9)).astype(float)
  found = truth.by_layer(ours, theirs)
  expected = [
    scipy.stats.spearmanr(a, b).statistic
    for a, b in zip(ours, theirs, strict=True)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  assert np.isnan(truth.spearman(np.ones(4), ours[0, :4]))


def test_a_union_is_as_large_as_the_budget():
  """Two best of each: {0, 1, 2} and {2, 3}: 2.5 of 3 on average.

  Three best of each would be {0, 1, 2, 3} in both layers.
  """
  scores = [
    np.array([[9.0, 8, 0, 1], [0, 1, 9, 8]]),
    np.array([[0.0, 9, 8, 1], [0, 1, 8, 9]]),
  ]
  assert lists(methods.union(scores, 3)) == [[0, 1, 2], [2, 3]]
  order = np.array([[0, 1, 2, 3], [0, 1, 2, 3]])
  keep = [np.array([0, 1, 2]), np.array([3])]
  found = methods.with_at_least(keep, order, 2)
  assert lists(found) == [[0, 1, 2], [0, 3]]


def test_continuations_match_up_to_the_first_difference():
  ours = np.array([[1, 2, 3, 4], [1, 9, 3, 4]])
  theirs = np.array([[1, 2, 3, 4], [1, 2, 3, 4]])
  assert measures.match(ours, theirs) == (4 + 1) / 8


def test_distinct_experts_of_a_step():
  """One window after the other sends all its tokens to {0, 1} or {2, 3}."""
  ids = np.tile([[0, 1], [2, 3]], (1, 1, 1)).reshape(1, 2, 1, 2)
  ids = np.tile(ids, (3, 1, 5, 1))  # L = 3, S = 5
  assert measures.distinct_experts(ids, 1, seed=0) == 2
  assert measures.distinct_experts(ids, 40, seed=0) == 4


def test_needs_are_those_of_the_scores():
  assert methods.needs(("frequency",)) == ("peu",)
  assert methods.needs(("reap", "enumeration")) == ("outputs", "peu", "samples")


@pytest.mark.parametrize(
  "change, message",
  [
    ({"methods": "peuh"}, "unknown method 'peuh', did you mean 'peu'"),
    ({"stages": "methods,all"}, "unknown stage 'all'"),
    ({"few_methods": "enumeration"}, "unknown method 'enumeration'"),
    ({"match_sparsities": (0.3,)}, r"match_sparsities must be of .*\[0.3\]"),
    ({"sparsities": ()}, "sparsities must be one or more"),
    ({"new_tokens": 64}, "new_tokens=64, context=64"),
  ],
)
def test_a_config_is_refused_before_any_work(change, message):
  config = quick.get_config()
  with config.ignore_type():
    config.update(change)
  with pytest.raises(ValueError, match=message) as error:
    settings.read(config)
  assert "\n" not in str(error.value)


def test_the_byte_model_has_to_decode():
  config = quick.get_config()
  config.pretrain.model = "byte_lm"
  with pytest.raises(ValueError, match="pretrain.model must be 'decoder'"):
    settings.read(config)


def row(seed, method, sparsity, domain, loss, accuracy):
  scope = "specialist" if domain != "all" else "generalist by tokens"
  return {
    "seed": seed,
    "method": method,
    "sparsity": sparsity,
    "scope": scope,
    "domain": domain,
    "kept": 4.0,
    "loss_in": loss,
    "accuracy_in": accuracy,
  }


@pytest.fixture
def folder(tmp_path):
  """Two seeds of two domains, of which the whole model has .5 and .7."""
  for seed, rise in ((0, 0.1), (1, 0.3)):
    rows = [
      row(seed, stages.WHOLE, 0.0, "a", 1.0, 0.5),
      row(seed, stages.WHOLE, 0.0, "b", 2.0, 0.7),
      row(seed, "peu", 0.5, "a", 1.0 + rise, 0.5),
      row(seed, "peu", 0.5, "b", 2.0, 0.6),
    ]
    atomic.write_json(tmp_path / f"methods-{seed}.json", {"rows": rows})
    rows = [
      {"seed": seed, "method": "peu", "layer": layer, "rho": rho}
      for layer, rho in enumerate((0.2, 0.6 + rise))
    ]
    atomic.write_json(tmp_path / f"truth-{seed}.json", {"rows": rows})
    rows = [
      {"seed": seed, "method": "peu", "samples": n, "accuracy_in": n / 100}
      for n in (10, 5)
    ]
    atomic.write_json(tmp_path / f"samples-{seed}.json", {"rows": rows})
  return tmp_path


def test_tables_and_figures_are_made_of_files_alone(folder, capsys):
  tables.write(folder)
  summary = json.loads((folder / "summary.json").read_text())
  name = "methods/specialist/0.5/peu"
  # Means over domains: .05 and .15; over seeds .1, and t(.975; 1) = 12.706
  # times the error .05.
  assert summary[f"{name}/loss_in_change"] == pytest.approx(0.1)
  high = summary[f"{name}/loss_in_change_high"]
  assert high == pytest.approx(0.1 + 12.706 * 0.05, rel=1e-4)
  assert summary[f"{name}/accuracy_in_change"] == pytest.approx(-0.05)
  assert summary["truth/peu/rho"] == pytest.approx((0.45 + 0.55) / 2)
  assert summary["truth/peu/layer 1/rho"] == pytest.approx(0.8)
  text = (folder / "tables.md").read_text()
  assert text.strip() == capsys.readouterr().out.strip()
  assert "**specialist, 50 % of the experts cut**" in text
  assert "| peu | 0.100 [-0.535, 0.735] | -5.0 [-5.0, -5.0] |" in text
  assert "| method | 5 | 10 |" in text
  assert (folder / "methods.csv").read_text().splitlines()[0].startswith("seed")
  assert len((folder / "methods.csv").read_text().splitlines()) == 1 + 8
  for file in ("effects.png", "truth.png", "samples.png"):
    assert (folder / file).stat().st_size > 1000
  assert not (folder / "merging.png").exists()


def test_a_damaged_stage_is_refused(folder):
  path = folder / "truth-1.json"
  path.write_text(path.read_text().replace("0.2", "0.3"))
  with pytest.raises(ValueError, match="truth-1.json"):
    tables.load(folder)


# It compiles a model's training, decoding and calibration: half a minute.
@pytest.mark.slow
def test_a_run_is_kept_stage_by_stage(tmp_path, capsys, monkeypatch):
  config = quick.get_config()
  config.pretrain.update(
    num_layers=1,
    model_dim=8,
    num_heads=1,
    head_dim=4,
    expert_dim=8,
    num_experts=4,
    context=8,
    num_steps=2,
    dense_steps=0,
    batch_size=4,
  )
  config.update(
    {
      "methods": "peu,random",
      "few_methods": "frequency",
      "stages": "methods,truth,samples,own_text,costs,headroom",
      "num_seeds": 2,
      "calibration_windows": 2,
      "test_windows": 2,
      "prompts": 1,
      "new_tokens": 2,
      "max_domains": 2,
      "latency_repeats": 2,
    }
  )
  with config.ignore_type():
    config.sparsities = (0.5,)
    config.sample_counts = (1, 2)
    config.decode_batches = (1,)
  config.headroom.update(search_steps=20, recovery_steps=2)
  study.run(config, workdir=tmp_path / "run", progress=False)
  first = capsys.readouterr().out
  found = tables.load(tmp_path / "run")
  # Whole: 2 specialists, 1 generalist; each method 2 and 2; one union.
  assert len(found["methods"]) == 2 * (3 + 2 * 4 + 1)
  assert len(found["truth"]) == 2 * 3  # two scores and the truth's half
  for one in found["methods"]:
    assert one["kept"] == (4 if one["sparsity"] == 0 else 2)
  # Two seeds, domains and counts; the longest text is the given one.
  assert len(found["samples"]) == 2 * 2 * 2
  texts = ("given text", "own continuation", "prompt alone")
  assert {one["text"] for one in found["own_text"]} == set(texts)
  given = [r for r in found["own_text"] if r["text"] == texts[0]]
  both = [r for r in found["samples"] if r["samples"] == 2]
  for ours, theirs in zip(given, both, strict=True):
    assert ours["loss_in"] == theirs["loss_in"]
  whole, half = found["costs"][:2]
  assert half["expert_bytes"] * 2 == whole["expert_bytes"]
  assert whole["distinct_1"] == half["distinct_1"] == 2
  assert half["decode_ms_1"] > 0
  _check_headroom(found["headroom"])
  # Started again, nothing is computed that is there.
  monkeypatch.setattr(stages, "STAGES", dict.fromkeys(stages.STAGES))
  study.run(config, workdir=tmp_path / "run", progress=False)
  assert capsys.readouterr().out == first


def _check_headroom(rows):
  """Two seeds and domains of four choices and twice two trainings."""
  shared = [row for row in rows if "overlap_of" in row]
  # K = 2 is what the half of four experts is, too.
  assert [row["overlap_of"] for row in shared] == [2, 2]
  assert all(0 <= row["overlap"] <= 1 for row in shared)
  rows = [row for row in rows if "method" in row]
  assert len(rows) == 2 * 2 * (4 + 4)
  by_name = {
    (r["seed"], r["domain"], r["method"]): r
    for r in rows
    if r["trained"] == "-"
  }
  for (seed, domain, name), one in by_name.items():
    assert 0 < one["pairs_kept"] <= 1 and 0 < one["gates_kept"] <= 1
    whole = by_name[seed, domain, stages.WHOLE]
    assert whole["pairs_kept"] == 1
    assert name == stages.WHOLE or one["loss_in"] != whole["loss_in"]


# It compiles a step of every size: ten seconds.
@pytest.mark.slow
def test_decode_times_of_every_size():
  config = models.preset("tiny", num_layers=1, num_experts=8, context=16)
  found = decode.collect(config, batches=(1, 32), repeats=2)
  rows = found["rows"]
  assert [row["num_experts"] for row in rows] == [8, 4, 2]
  assert rows[0]["distinct_1"] == rows[2]["distinct_32"] == 2
  assert rows[0]["distinct_32"] > rows[1]["distinct_32"] == 4
  lines = decode.to_markdown(found).splitlines()
  assert lines[-3].startswith("| 0 % | 8 |")
  assert lines[-3].count("| 1.00 |") == 2
