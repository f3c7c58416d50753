import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from configs.online import quick
from experiments import online_merging
from experiments.online import model_stream, settings
from tanbr_jax import bandits, data
from tanbr_jax.online import regret, trace
from tanbr_jax.report import workdir as reporting

METHODS = "uniform,best_static,routed"


def make_config(folder):
  config = quick.get_config()
  config.data.path = str(folder / "text")
  config.cache_dir = str(folder / "cache")
  config.pretrain.update(
    num_layers=1,
    model_dim=8,
    num_heads=1,
    head_dim=4,
    expert_dim=8,
    num_experts=3,
    context=8,
    num_steps=2,
    dense_steps=0,
    warmup_steps=0,
    batch_size=4,
    mixes_per_step=2,
  )
  config.oracle.update(
    steps=2,
    search_windows=4,
    windows=4,
    error_mixes=2,
    error_starts=1,
    error_steps=2,
  )
  config.num_rounds, config.chunk_size, config.requests = 8, 4, 4
  config.num_seeds = 1
  config.bandits, config.latency_repeats = METHODS, 2
  return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("online")
  for task, text in (("up", "abcdefgh "), ("down", "hgfedcba, ")):
    path = folder / "text" / task
    path.mkdir(parents=True)
    for part in range(10):
      (path / f"{part}.txt").write_text(text * (40 + part))
  online_merging.run(
    make_config(folder), workdir=folder / "run", progress=False
  )
  return folder


@pytest.mark.slow
def test_folder_is_complete(folder):
  files = {path.name for path in (folder / "run").iterdir()}
  assert files >= {
    "config.json",
    "metrics.jsonl",
    "trace.npz",
    "summary.json",
    "report.html",
    "regret.png",
    "reward.png",
    "growth.png",
  }
  summary = reporting.read_json(folder / "run" / "summary.json")
  for method in (*METHODS.split(","), "oracle"):
    assert np.isfinite(summary[f"{method}/mean_reward"])
  # One layer of two 8 x 8 float32 matrices, and three experts.
  assert summary["merged/expert_bytes"] == 512
  assert summary["routed/expert_bytes"] == 3 * 512
  assert summary["merged/slot_latency_ms"] > 0
  assert summary["pretrain_seconds"] > 0
  assert np.isfinite(summary["oracle_search_error"])
  assert summary["task_names"] == "down,up"


@pytest.mark.slow
def test_regret_counts_from_the_oracle_on_the_same_slots(folder):
  traces = trace.load(folder / "run" / "trace.npz")
  summary = reporting.read_json(folder / "run" / "summary.json")
  oracle = traces["oracle"].expected_reward.astype(float)
  for method in METHODS.split(","):
    one = traces[method]
    # The same requests, whatever is played and whoever serves.
    np.testing.assert_array_equal(one.task_count, traces["oracle"].task_count)
    np.testing.assert_array_equal(one.optimal_reward, oracle.astype("f4"))
    final = (oracle - one.expected_reward).sum(axis=1).mean()
    assert summary[f"{method}/expected_regret"] == pytest.approx(
      final, abs=1e-5
    )
  np.testing.assert_allclose(traces["uniform"].merge_weights, 1 / 3)
  assert np.ptp(traces["best_static"].merge_weights, axis=(0, 1)).max() == 0
  assert np.abs(regret.expected(traces["oracle"])).max() == 0


@pytest.mark.slow
def test_the_job_runs_on_a_decoder(folder):
  config = make_config(folder)
  config.pretrain.update(model="decoder", num_steps=1)
  config.bandits, config.chunk_size = "tanbr,uniform,routed", 8
  online_merging.run(config, workdir=folder / "decoder", progress=False)
  summary = reporting.read_json(folder / "decoder" / "summary.json")
  # One layer of three 8 x 8 float32 matrices (it is gated), three experts.
  assert summary["merged/expert_bytes"] == 768
  assert summary["routed/expert_bytes"] == 3 * 768
  traces = trace.load(folder / "decoder" / "trace.npz")
  assert set(traces) == {"tanbr", "uniform", "routed", "oracle"}
  # One step is no training: what is served is a random model of 256 tokens.
  assert traces["uniform"].expected_reward.mean() < 0.5


@pytest.mark.slow
def test_a_judge_pays_for_one_task_alone(folder):
  config = make_config(folder)
  config.reward, config.paying_tasks = "judge", "up"
  config.oracle.climb_rounds = 2
  config.mix_options.drift.concentration = 2.0  # both tasks in every slot
  workdir = folder / "judge"
  online_merging.run(config, workdir=workdir, progress=False)
  traces = trace.load(workdir / "trace.npz")
  # The routed model agrees with itself: its reward is the share of requests of
  # "up", the second task.
  paid = traces["routed"].task_count[..., 1] / config.requests
  np.testing.assert_allclose(traces["routed"].expected_reward, paid, atol=1e-6)
  assert 0 < paid.mean() < 1
  assert (traces["uniform"].expected_reward <= paid + 1e-6).all()
  summary = reporting.read_json(workdir / "summary.json")
  assert np.isfinite(summary["oracle_search_error"])


def first_order(needs, *, num_experts, num_tasks):
  """Uniform weights; counts the requests of all gradients that it is shown."""
  del num_tasks

  def select(key, state, context):
    del key, context
    weights = jnp.full(num_experts, 1 / num_experts)
    return bandits.Decision(weights, {"seen": state})

  def update(key, state, context, decision, feedback):
    del key, context, decision
    assert (feedback.usage is None) == ("usage" not in needs)
    assert feedback.gradient.shape == (num_experts,)
    return state + feedback.gradient_count

  init = Partial(lambda key: jnp.int32(0))
  return bandits.Bandit(init, select, update, bandits.Needs(needs))


def register(monkeypatch, needs):
  mine = {"mine": functools.partial(first_order, needs)}
  monkeypatch.setattr(bandits, "REGISTRY", {**bandits.REGISTRY, **mine})


@pytest.mark.slow
@pytest.mark.parametrize("needs", [("gradient",), ("gradient", "usage")])
def test_a_method_gets_the_signals_that_it_needs(folder, needs, monkeypatch):
  register(monkeypatch, needs)
  config = make_config(folder)
  config.bandits, config.gradient_requests = "mine", 3
  workdir = folder / "-".join(needs)
  online_merging.run(config, workdir=workdir, progress=False)
  found = trace.load(workdir / "trace.npz")["mine"]
  np.testing.assert_array_equal(found.aux["seen"][0], 3 * np.arange(8))
  assert not found.nonfinite_signals.any()


@pytest.mark.parametrize("merges", [3, 4])
def test_merges_that_do_not_fit_are_refused(merges, tmp_path):
  config = make_config(tmp_path)
  config.signal, config.merges = "differences", merges
  message = f"merges={merges}, num_experts=3, gradient_requests=4"
  with pytest.raises(ValueError, match=message):
    settings.read(config)


def test_a_method_without_its_signal_is_refused_before_training(
  monkeypatch, tmp_path
):
  register(monkeypatch, ("gradient",))
  config = make_config(tmp_path)
  config.bandits, config.gradient_requests = "mine", 0
  message = "mine needs feedback.gradient, .* with gradient_requests"
  with pytest.raises(ValueError, match=message) as error:
    online_merging.make_learners(settings.read(config), num_tasks=2)
  assert "\n" not in str(error.value)


@pytest.mark.slow
def test_gap_recovered_by_hand(folder):
  traces = trace.load(folder / "run" / "trace.npz")
  last = {n: t.expected_reward[:, -2:].mean() for n, t in traces.items()}
  lead = last["oracle"] - last["best_static"]
  summary = reporting.read_json(folder / "run" / "summary.json")
  if abs(lead) > 1e-6:
    assert summary["uniform/gap_recovered"] == pytest.approx(
      (last["uniform"] - last["best_static"]) / lead, rel=1e-3
    )


@pytest.mark.slow
def test_figures_are_drawn_again_from_the_files(folder):
  before = (folder / "run" / "report.html").read_bytes()
  for figure in (folder / "run").glob("*.png"):
    figure.unlink()
  online_merging.draw(folder / "run")
  assert (folder / "run" / "report.html").read_bytes() == before


@pytest.mark.slow
def test_a_second_start_reads_everything(folder):
  before = (folder / "run" / "trace.npz").read_bytes()
  online_merging.run(
    make_config(folder), workdir=folder / "run", progress=False
  )
  assert (folder / "run" / "trace.npz").read_bytes() == before
  summary = reporting.read_json(folder / "run" / "summary.json")
  assert "pretrain_seconds" not in summary  # the model came from the cache
  lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
  # Three methods and the oracle, eight rounds in fours.
  assert len({(x["run"], x["chunk"]) for x in map(json.loads, lines)}) == 8
  assert len(lines) == 8


@pytest.mark.slow
def test_other_text_is_refused(folder):
  path = folder / "text" / "up" / "10.txt"
  path.write_text("more text " * 50)
  try:
    with pytest.raises(ValueError, match="corpus_fingerprint='.* there"):
      online_merging.run(
        make_config(folder), workdir=folder / "run", progress=False
      )
  finally:
    path.unlink()


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("bandits", "tanbr,routd", "unknown bandit 'routd', did you mean 'routed'"),
    ("mix", "drfit", "mix must be one of .*, got 'drfit'"),
    ("requests", 0, "requests must be at least 1, got requests=0"),
    ("num_rounds", -1, "num_rounds must be at least 1, .*=-1"),
    ("latency_repeats", 0, "latency_repeats must be at least 1, .*=0"),
    ("first_seed", -3, "first_seed must be .*, got first_seed=-3"),
    ("loop", "scan", "loop must be .*, got loop='scan'"),
    ("monitor", "median", "monitor must be .*, got 'median'"),
    ("oracle.steps", 0, "oracle.steps must be at least 1"),
    ("monitor_decay", 1.5, r"monitor_decay must be in \[0, 1\), got .*=1.5"),
    (
      "pretrain.dtype",
      "float99",
      "pretrain.dtype must be .*, got dtype='float99'",
    ),
    ("methods.a/b", {}, "method must be .*, got method='a/b'"),
    ("pretrain.num_selected", 4, "num_selected=4, num_experts=3"),
    ("reward", "loss", "reward must be one of .*, got 'loss'"),
    ("signal", "loss", "signal must be one of .*, got signal='loss'"),
    ("gradient_requests", 5, "got gradient_requests=5, requests=4"),
  ],
)
def test_bad_values(field, value, message, tmp_path):
  config = make_config(tmp_path)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    settings.read(config)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("mix_options.drift.rate", -1.0, "rate must be .*, got rate=-1.0"),
    ("paying_tasks", "a,c", "unknown task 'c'"),
    ("pretrain.table", "identity", "num_experts=3, num_tasks=2"),
    ("pretrain.context", 60, "at least"),
  ],
)
def test_what_does_not_fit_the_text_is_refused_before_training(
  field, value, message, tmp_path
):
  config = make_config(tmp_path)
  config.update_from_flattened_dict({field: value})
  # Validation text for one window of 60, and not for the four parts of it.
  text = np.zeros(122, np.uint8)
  splits = {name: (text, text) for name in ("train", "validation", "test")}
  corpus = data.Corpus(("a", "b"), splits, "fingerprint")
  with pytest.raises(ValueError, match=message):
    model_stream.collect(settings.read(config), corpus)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"bandit": "tanbr", "rho": 1.5}, r"rho must be in \(0, 1\), got rho=1.5"),
    ({"bandit": "tanbrr"}, "unknown bandit 'tanbrr'.*did you mean 'tanbr"),
    ({}, "unknown bandit 'mine' of method 'mine'"),
    ({"bandit": "lin_ucb", "explor": 1.0}, "'mine'.*explor"),
    ({"bandit": "tanbr", "delay": 0}, "delay must be at least 1, got delay=0"),
  ],
)
def test_bad_options_of_a_method(options, message, tmp_path):
  config = make_config(tmp_path)
  config.methods.mine, config.bandits = options, "mine"
  with pytest.raises(ValueError, match=message):
    online_merging.make_learners(settings.read(config), num_tasks=2)


def test_options_of_a_method_made_of_the_model_are_refused(tmp_path):
  config = make_config(tmp_path)
  config.methods.routed = {"bandit": "tanbr"}
  with pytest.raises(ValueError, match=r"take no options: \['routed'\]"):
    settings.read(config)
