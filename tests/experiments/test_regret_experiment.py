import pathlib
import runpy

import jax
import ml_collections
import numpy as np
import pytest

from configs.regret import quick
from experiments.common import drawing
from experiments.regret import comparison, figures
from tanbr_jax.online import trace
from tanbr_jax.report import workdir as reporting


def make_config():
  config = quick.get_config()
  config.num_rounds, config.chunk_size, config.num_seeds = 12, 6, 2
  config.families, config.mixes = "quadratic", "drift,fixed"
  # Two bandits of one structure, hence one compilation.
  config.bandits, config.baseline = "uniform,still", "uniform"
  config.methods.still = {"bandit": "fixed", "weights": [1.0] + [0.0] * 7}
  config.figures = "curves,ablation"
  return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("regret")
  comparison.run(make_config(), workdir=folder, progress=False)
  return folder


def test_folder_is_complete(workdir):
  files = {path.name for path in workdir.iterdir()}
  assert files >= {
    "config.json",
    "metrics.jsonl",
    "trace.npz",
    "summary.json",
    "report.html",
    "curves.png",
    "ablation.png",
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
  comparison.draw(workdir)
  assert (workdir / "report.html").read_bytes() == before


def test_a_streams_own_figures(workdir):
  traces = drawing.load_groups(workdir)["quadratic/fixed"]
  figures = drawing.draw_stream(workdir, traces, prefix="one_", log=True)
  # Neither method has a tree, a bonus or a prediction.
  names = ["regret", "growth", "reward", "optimal_play"]
  assert [figure.file for figure in figures] == [f"one_{n}.png" for n in names]
  assert all((workdir / figure.file).exists() for figure in figures)


def test_another_config_is_refused(workdir):
  config = make_config()
  config.noise = 0.1
  with pytest.raises(ValueError, match=r"config.noise=0.05 there, 0.1 here"):
    comparison.run(config, workdir=workdir, progress=False)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("families", "cubic", "unknown family 'cubic'"),
    ("mixes", "drfit", "unknown mix 'drfit', did you mean 'drift'"),
    ("bandits", "tanbr_papr", "did you mean 'tanbr_paper'"),
    ("noise", -1.0, "noise must be at least 0, got noise=-1.0"),
    ("baseline", "tanb", "unknown baseline 'tanb', did you mean 'tanbr'"),
  ],
)
def test_bad_values(field, value, message):
  config = make_config()
  config[field] = value
  with pytest.raises(ValueError, match=message):
    comparison.build(config)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("num_seeds", 0, "num_seeds must be in .*, got num_seeds=0"),
    ("first_seed", 2**31 - 2, "first_seed=2147483646, num_seeds=2"),
    ("loop", "scan", "loop must be one of .*, got loop='scan'"),
  ],
)
def test_bad_runs(field, value, message, tmp_path):
  config = make_config()
  config[field] = value
  with pytest.raises(ValueError, match=message):
    comparison.run(config, workdir=tmp_path / "run", progress=False)
  assert not (tmp_path / "run").exists()


def test_settings_are_streams_of_their_own():
  config = make_config()
  config.mixes, config.bandits = "drift", "uniform"
  config.settings = ml_collections.ConfigDict(
    {"few": {"num_experts": 4}, "many": {"num_experts": 6}}
  )
  jobs = comparison.build(config)
  streams = [job.stream for job in jobs]
  assert streams == ["quadratic/drift/few", "quadratic/drift/many"]
  for job, count in zip(jobs, (4, 6), strict=True):
    decision = job.bandit.select(jax.random.key(0), (), None)
    assert decision.merge_weights.shape == (count,)
  config.settings.few = {"num_expert": 4}
  with pytest.raises(ValueError, match="did you mean 'num_experts'"):
    comparison.build(config)
  config.settings = ml_collections.ConfigDict({"a/b": {}})
  with pytest.raises(ValueError, match="setting must be .*got setting='a/b'"):
    comparison.build(config)


def test_a_number_that_was_varied_makes_a_line(tmp_path):
  config = make_config()
  config.mixes, config.figures, config.varied = "drift", "ablation", "share"
  ends = {"low": 0.2, "mid": 0.5, "high": 1.0}
  summary = {}
  for stream in ("quadratic/drift", "all"):
    for method, ratio in (("low", 3.0), ("high", 0.5)):
      for end, shift in (("", 0), ("_low", -0.1), ("_high", 0.1)):
        summary[f"{stream}/{method}/ratio{end}"] = ratio + shift
  reporting.write_summary(tmp_path, summary)
  settings = config.to_dict() | {
    "methods": {name: {"share": value} for name, value in ends.items()},
    "baseline": "mid",
  }
  ratios = figures.ratios_of(summary)
  assert ratios["high"]["all"] == pytest.approx((0.5, 0.4, 0.6))
  (figure,) = figures.draw(tmp_path, settings)
  assert (tmp_path / figure.file).exists()
  sweep = figures._sweep(ratios, ends, baseline="mid", varied="share")
  points = sweep.axes[0].containers[0].lines[0].get_xydata()
  # The baseline is 1 by definition.
  np.testing.assert_array_equal(points, [[0.2, 3.0], [0.5, 1.0], [1.0, 0.5]])


def test_ratios_over_the_settings(tmp_path):
  summary = {
    f"{stream}/still/ratio": value
    for stream, value in (
      ("quadratic/drift/E4", 2.0),
      ("quadratic/drift/E8", 5.0),
      ("all", 3.0),
    )
  }
  reporting.write_summary(tmp_path, summary)
  config = make_config().to_dict() | {
    "figures": "settings",
    "varied": "num_experts",
    "settings": {"E4": {"num_experts": 4}, "E8": {"num_experts": 8}},
  }
  (figure,) = figures.draw(tmp_path, config)
  assert figure.file == "quadratic_drift_settings.png"
  assert (tmp_path / figure.file).exists()


CONFIGS = [
  path
  for path in sorted(pathlib.Path(quick.__file__).parent.glob("*.py"))
  # Of other experiments, and what several configs share.
  if path.stem
  not in ("landscape", "latency", "ternary", "tune", "tuned", "variants")
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_what_there_is(path):
  config = runpy.run_path(str(path))["get_config"]()
  assert config.num_seeds >= 16 or path.stem == "quick"
  # One stream is enough to build every method once.
  config.families, config.mixes = "quadratic", "drift"
  config.settings = ml_collections.ConfigDict()
  assert {job.method for job in comparison.build(config)} == set(
    config.bandits.split(",")
  )


def test_methods_of_one_structure_are_grouped_by_stream():
  config = make_config()
  config.bandits += ",random"
  jobs = comparison.build(config)
  assert [len(group) for group in comparison.groups(jobs, False)] == [1] * 6
  grouped = comparison.groups(jobs, True)
  found = [[(j.stream, j.method) for j in group] for group in grouped]
  assert found == [
    [(stream, name) for name in names]
    for stream in ("quadratic/drift", "quadratic/fixed")
    for names in (("uniform", "still"), ("random",))
  ]


def test_methods_that_play_together_are_told_apart(workdir, tmp_path):
  config = make_config()
  config.together = True
  comparison.run(config, workdir=tmp_path, progress=False)
  found, wanted = (
    reporting.read_json(folder / "summary.json")
    for folder in (tmp_path, workdir)
  )
  assert found.keys() == wanted.keys()
  for name in ("uniform", "still"):
    key = f"quadratic/fixed/{name}/expected_regret"
    assert found[key] == pytest.approx(wanted[key], rel=1e-5)
