import itertools

import pytest

from configs.online import quick
from experiments import signal_costs
from tanbr_jax.report import workdir as reporting

pytestmark = pytest.mark.slow


def make_config():
  config = quick.get_config()
  config.pretrain.update(
    num_layers=1,
    model_dim=8,
    num_heads=1,
    head_dim=4,
    expert_dim=8,
    num_experts=3,
    context=4,
  )
  config.requests, config.latency_repeats = 2, 3
  config.bandits = "uniform,meta_gradient,routed"
  return config


def test_a_run_from_its_config(tmp_path, capsys, monkeypatch):
  few = dict(itertools.islice(signal_costs.options(2).items(), 2))
  few["merged, gradient of 1"] = {"gradient_requests": 1}
  monkeypatch.setattr(signal_costs, "options", lambda requests: few)
  signal_costs.run(make_config(), workdir=tmp_path)
  rows = reporting.read_json(tmp_path / signal_costs.FILE)["rows"]
  assert [row["slot"] for row in rows] == [
    *few,
    "learner, uniform",
    "learner, meta_gradient",
  ]
  assert rows[0]["merged_slots"] == 1
  for row in rows:
    assert 0 < row["low"] <= row["median"] <= row["high"]
    assert row["merged_slots"] == row["median"] / rows[0]["median"]
  assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)


def test_kinds_of_slots():
  found = signal_costs.options(16)
  counts = [
    given["gradient_requests"]
    for given in found.values()
    if given.get("signal") is None and "gradient_requests" in given
  ]
  assert counts == [1, 2, 4, 8, 16]
  assert found["merged"] == {} and len(found) == 4 + 5 + 3
