import numpy as np
import pytest

from configs.regret import quick
from experiments import regret
from tanbr_jax import reporting, trace


def make_config():
  config = quick.get_config()
  config.num_rounds, config.chunk_size, config.num_seeds = 12, 6, 2
  config.families, config.mixes = "quadratic", "drift,fixed"
  # Two bandits of one structure, hence one compilation.
  config.bandits, config.baseline = "uniform,still", "uniform"
  config.methods.still = {"bandit": "fixed", "weights": [1.0] + [0.0] * 7}
  return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("regret")
  regret.run(make_config(), workdir=folder, progress=False)
  return folder


def test_folder_is_complete(workdir):
  files = {path.name for path in workdir.iterdir()}
  assert files >= {
    "config.json",
    "metrics.jsonl",
    "trace.npz",
    "summary.json",
    "report.html",
    "quadratic_drift_regret.png",
    "quadratic_fixed_growth.png",
  }
  # A chunk a line: two mixes, two methods, twelve rounds in sixes.
  assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 8


def test_summary_agrees_with_the_traces(workdir):
  summary = reporting.read_json(workdir / "summary.json")
  final = {
    name: (one.optimal_reward - one.expected_reward).astype(float).sum(axis=1)
    for name, one in trace.load(workdir / "trace.npz").items()
  }
  logs = []
  for mix in ("drift", "fixed"):
    stream = f"quadratic/{mix}"
    assert summary[f"{stream}/still/expected_regret"] == pytest.approx(
      final[f"{stream}/still"].mean(), rel=1e-5
    )
    logs += list(np.log(final[f"{stream}/still"] / final[f"{stream}/uniform"]))
    assert summary[f"{stream}/still/ratio"] == pytest.approx(
      np.exp(np.mean(logs[-2:])), rel=1e-4
    )
  assert summary["all/still/ratio"] == pytest.approx(
    np.exp(np.mean(logs)), rel=1e-4
  )
  assert "quadratic/drift/uniform/ratio" not in summary


def test_figures_are_drawn_again_from_the_files(workdir):
  before = (workdir / "report.html").read_bytes()
  (workdir / "report.html").unlink()
  for figure in workdir.glob("*.png"):
    figure.unlink()
  regret.draw(workdir)
  assert (workdir / "report.html").read_bytes() == before


def test_another_config_is_refused(workdir):
  config = make_config()
  config.noise = 0.1
  with pytest.raises(ValueError, match=r"config.noise=0.05 there, 0.1 here"):
    regret.run(config, workdir=workdir, progress=False)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("families", "cubic", "unknown family 'cubic'"),
    ("mixes", "drfit", "unknown mix 'drfit', did you mean 'drift'"),
    ("bandits", "tanbr_papr", "did you mean 'tanbr_paper'"),
    ("num_seeds", 0, "num_seeds must be at least 1, got 0"),
    ("noise", -1.0, "noise must not be negative, got noise=-1.0"),
    ("baseline", "tanb", "unknown baseline 'tanb', did you mean 'tanbr'"),
  ],
)
def test_bad_values(field, value, message):
  config = make_config()
  config[field] = value
  with pytest.raises(ValueError, match=message):
    regret.build(config)
