import dataclasses
import json

import ml_collections
import numpy as np
import pytest
import toy

from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic, lock
from tanbr_jax.storage.numerics import numerics

CONFIG = ml_collections.ConfigDict(
  {"num_rounds": 10, "mix": {"kind": "drift", "rates": (0.1, 0.2)}}
)


def test_config_holds_what_decides_the_run(tmp_path):
  workdir = tmp_path / "deep" / "run"
  with lock.scope():
    opened = reporting.open_workdir(
      workdir, CONFIG, seeds=range(2), corpus_fingerprint="abc"
    )
    assert opened == workdir and (workdir / ".lock").exists()
  written = json.loads((workdir / "config.json").read_text())
  assert written["config"]["mix"] == {"kind": "drift", "rates": [0.1, 0.2]}
  assert written["seeds"] == [0, 1] and written["corpus_fingerprint"] == "abc"
  assert written["versions"]["numpy"] == np.__version__
  assert set(written["versions"]) == {
    "python",
    "tanbr-jax",
    "jax",
    "jaxlib",
    "numpy",
  }
  assert "cpu" in written["device"].lower()
  assert [p.name for p in workdir.iterdir()] == ["config.json"]


@pytest.fixture
def warnings(monkeypatch):
  lines = []
  monkeypatch.setattr(
    reporting.logging, "warning", lambda text, *args: lines.append(text % args)
  )
  return lines


def test_the_same_config_opens_again(tmp_path, warnings):
  reporting.open_workdir(tmp_path, CONFIG, seeds=(0,))
  assert reporting.open_workdir(tmp_path, CONFIG, seeds=(0,)) == tmp_path
  assert warnings == []


def test_another_config_is_refused_with_both_values(tmp_path):
  reporting.open_workdir(tmp_path, CONFIG, seeds=(0,))
  other = ml_collections.ConfigDict(CONFIG.to_dict())
  other.mix.kind = "fixed"
  other.update({"new": 1})
  with pytest.raises(ValueError) as error:
    reporting.open_workdir(tmp_path, other, seeds=(1,))
  assert str(error.value) == (
    f"{tmp_path} holds a run of another config: "
    "config.mix.kind='drift' there, 'fixed' here; "
    "config.new=absent there, 1 here; seeds=[0] there, [1] here"
  )


def test_the_devices_are_written_and_do_not_count(tmp_path):
  """A run goes on with any number of them."""
  config = ml_collections.ConfigDict(CONFIG.to_dict() | {"devices": "1"})
  reporting.open_workdir(tmp_path, config, seeds=(0,))
  config.devices = "all"
  reporting.open_workdir(tmp_path, config, seeds=(0,))
  written = json.loads((tmp_path / "config.json").read_text())
  assert written["config"]["devices"] == "1"


def test_other_versions_are_a_warning(tmp_path, warnings):
  reporting.open_workdir(tmp_path, CONFIG, seeds=(0,))
  path = tmp_path / "config.json"
  before = json.loads(path.read_text())
  before["versions"]["jax"] = "0.0.1"
  atomic.write_json(path, before)
  reporting.open_workdir(tmp_path, CONFIG, seeds=(0,))
  (message,) = warnings
  assert "versions.jax='0.0.1' there" in message


@pytest.mark.parametrize(
  "setting, changed",
  [
    ("jax_default_prng_impl", "rbg"),
    ("jax_threefry_partitionable", False),
    ("jax_random_seed_offset", 1),
    ("jax_default_matmul_precision", "float32"),
    ("jax_enable_x64", True),
    ("platform", "gpu"),
  ],
)
def test_other_numerics_are_refused(setting, changed, tmp_path, monkeypatch):
  reporting.open_workdir(tmp_path, CONFIG, seeds=(0,))
  now = numerics() | {setting: changed}
  monkeypatch.setattr(reporting, "numerics", lambda: now)
  before = numerics()[setting]
  with pytest.raises(ValueError) as error:
    reporting.open_workdir(tmp_path, CONFIG, seeds=(0,))
  assert str(error.value) == (
    f"{tmp_path} holds a run of another config: "
    f"numerics.{setting}={before!r} there, {changed!r} here"
  )


@pytest.mark.parametrize("text", ["", "[]", "3", '{"config": {}}', "{{"])
def test_a_damaged_config_is_refused_and_stays(text, tmp_path):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(ValueError, match="config.json") as error:
    reporting.open_workdir(tmp_path, CONFIG, seeds=(0,))
  assert "\n" not in str(error.value)
  assert (tmp_path / "config.json").read_text() == text
  assert [x.name for x in tmp_path.iterdir()] == ["config.json"]


def test_a_workdir_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  path = tmp_path / "file" / "run"
  with pytest.raises(ValueError, match=f"must be writable, got {path}: Not a"):
    reporting.open_workdir(path, CONFIG, seeds=(0,))


def test_summary_by_hand(tmp_path):
  # Two seeds, eight rounds, optimum 1: gaps of 1/4 and of 1/2 a round.
  played = np.repeat([[0.75], [0.5]], 8, axis=1)
  summary = reporting.summarise(
    toy.make_trace(played, played - 0.25, np.ones_like(played))
  )
  assert summary["mean_reward"] == summary["last_quarter_reward"] == 0.625
  assert summary["expected_regret"] == 3.0  # (2 + 4) / 2
  assert summary["realised_regret"] == 5.0  # 8 * .25 more
  # s = sqrt 2, half = t(.975, 1) * sqrt 2 / sqrt 2 = 12.7062.
  assert summary["expected_regret_high"] == pytest.approx(15.7062, abs=1e-4)
  assert summary["growth_exponent"] == pytest.approx(1.0)
  assert summary["rounds_per_second"] == 8.0
  assert summary["simple_regret"] == 0.375
  assert summary["regret_over_root"] == pytest.approx(3 / 8**0.5)
  # A gap is never within 1 % of itself, unless the range is wider.
  assert summary["optimal_play_rate"] == 0
  assert "model_error" not in summary and "num_leaves" not in summary
  reporting.write_summary(tmp_path, summary | {"x": float("nan")})
  assert reporting.read_json(tmp_path / "summary.json")["x"] is None


def test_summary_of_what_the_method_reports():
  played = np.repeat([[0.75], [0.5]], 8, axis=1)
  trace = toy.make_trace(played, played, np.ones_like(played))
  aux = {
    "predicted_reward": np.float32([[0] * 6 + [1, 1]] * 2),
    "exploration_bonus": np.float32([[9] * 6 + [-1, 2]] * 2),
    "num_leaves": np.int32([range(8), range(2, 10)]),
  }
  summary = reporting.summarise(
    dataclasses.replace(trace, aux=aux), reward_range=np.full(2, 40.0)
  )
  # Last quarter, two rounds: errors 1/4 and 1/2, sizes of the bonus 1 and 2.
  assert summary["model_error"] == 0.375
  assert summary["exploration_bonus"] == 1.5
  assert summary["num_leaves"] == 8.0  # (7 + 9) / 2
  # 1 % of 40 is .4: the first seed's gap is within, the second's is not.
  assert summary["optimal_play_rate"] == 0.5


def test_summary_is_flat(tmp_path):
  with pytest.raises(ValueError, match=r"must be flat, got a=\{'b': 1\}"):
    reporting.write_summary(tmp_path, {"a": {"b": 1}})
