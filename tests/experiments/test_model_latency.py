import dataclasses

import jax
import numpy as np
import pytest

from configs.model_latency import gpu, quick
from experiments import latency
from experiments.common import records
from experiments.model_latency import programs as latency_programs
from experiments.model_latency import queues, settings, table
from experiments.model_latency.programs import BATCH, HALF, PAIRS, Sizes
from tanbr_jax import models
from tanbr_jax.report import workdir as reporting

TINY = models.preset("tiny")
FORMS = ("routed", "masked_pairs", "masked_experts", "merged")


def make_config(**fields):
  config = quick.get_config()
  # One decoding batch: every size is three programs to compile.
  config.decode_batch_sizes, config.repeats, config.max_seconds = (2,), 3, 0.0
  config.update(fields)
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp("latency")
  latency.run(make_config(), workdir=folder)
  return folder, reporting.read_json(folder / reporting.SUMMARY)


@pytest.mark.slow
def test_bytes_are_those_of_the_shapes(finished):
  _, summary = finished
  # Float32, two layers, three 16 x 24 matrices an expert, 16 x 12 shared.
  shared, expert = 2 * 3 * 16 * 12 * 4, 2 * 3 * 16 * 24 * 4
  # Tables 64 x 16 twice; five norms of 16 and two of 8 a layer; attention:
  # (4 + 2 * 2) heads of 8 in, 4 * 8 out.
  rest = 4 * (2 * 64 * 16 + 5 * 16 + 2 * (2 * 8 + 16 * 64 + 32 * 16))
  routers = 4 * 2 * 16 * 4
  routed, merged = rest + routers + shared + 4 * expert, rest + shared + expert
  for form in FORMS[:3]:
    assert summary[f"tiny/{form}/expert_bytes"] == shared + 4 * expert
    assert summary[f"tiny/{form}/parameter_bytes"] == routed
  assert summary["tiny/merged/expert_bytes"] == shared + expert
  assert summary["tiny/merged/parameter_bytes"] == merged
  # What merging leaves alone is there once.
  assert summary["tiny/both/parameter_bytes"] == routed + expert


@pytest.mark.slow
def test_plans_hold_inputs_and_outputs(finished):
  _, summary = finished
  # Keys and values of 4 x 8 positions, two layers, two heads of 8; logits.
  outputs = 4 * (2 * 2 * 4 * 8 * 2 * 8 + 4 * 64)
  for form in FORMS:
    inputs = summary[f"tiny/{form}/parameter_bytes"]
    temporary = summary[f"tiny/{form}/batch_temporary_bytes"]
    rest = summary[f"tiny/{form}/batch_plan_bytes"] - inputs - temporary
    # Beside these: tokens, a length, a mask of [2, 4, 8, 4] bytes, addresses.
    assert outputs <= rest <= outputs + 2048


@pytest.mark.slow
def test_every_time_has_its_quartiles(finished):
  _, summary = finished
  keys = [
    f"{form}/{what}_ms" for form in FORMS for what in ("batch", "decode_2")
  ]
  for key in [*keys, "merge/merge_ms"]:
    value = summary[f"tiny/{key}"]
    low, high = summary[f"tiny/{key}_q1"], summary[f"tiny/{key}_q3"]
    assert 0 < low <= value <= high


@pytest.mark.slow
def test_a_cpu_has_no_peak_and_says_so(finished):
  _, summary = finished
  if jax.default_backend() == "cpu":
    assert summary["tiny/merged/peak_bytes"] is None


@pytest.mark.slow
def test_the_table_is_drawn_from_the_summary(finished):
  _, summary = finished
  found = {k.removeprefix("tiny/"): v for k, v in summary.items()}
  found |= {"routed/batch_ms": 8.0, "merged/batch_ms": 2.0}
  found["merged/batch_floor_ms"] = 1.25
  lines = table.markdown("tiny", found, records.read(Sizes, make_config()))
  rows = [line for line in lines.splitlines() if line.startswith("|")]
  assert len({row.count("|") for row in rows}) == 1
  assert len(rows) == 2 + len(FORMS) + 1
  (merged,) = [row for row in rows if row.startswith("| merged |")]
  assert "| 2 (-75 %), floor 1.2 |" in merged


@pytest.mark.parametrize("batch_size", [BATCH, 3])
def test_masks(batch_size):
  sizes = Sizes(50, 40, (3,), 4)
  num_tokens = 50 * 40 if batch_size == BATCH else 3
  make = latency_programs.make_reroute
  (half,) = make(TINY, sizes, batch_size, HALF, 0.15).args
  assert half.shape == (2, num_tokens, 4)
  np.testing.assert_array_equal(
    np.unique(np.reshape(half, (-1, 4)), axis=0), [[True, True, False, False]]
  )
  (pairs,) = make(TINY, sizes, batch_size, PAIRS, 0.15).args
  assert pairs.shape == half.shape
  if batch_size == BATCH:
    # 16,000 draws: a standard deviation of .003.
    assert float(np.mean(pairs)) == pytest.approx(0.15, abs=0.012)
  assert make(TINY, sizes, batch_size, "merged", 0.15) is None


def test_decoding_again_gives_the_same():
  sizes = Sizes(1, 3, (2,), 4)
  model = models.Decoder(dataclasses.replace(TINY, num_experts=None))
  params = jax.jit(model.init)(jax.random.key(0))
  program = jax.jit(latency_programs.decode_program(model, 3), donate_argnums=1)
  tokens = latency_programs.make_tokens(TINY, sizes, 2)
  caches = {2: latency_programs.make_cache(model, sizes, 2)}
  decoding = queues.Decoding(program, params, tokens, None, caches=caches)
  assert decoding.calls == 4
  first = np.asarray(decoding.run(1))
  np.testing.assert_array_equal(first, decoding.run(2))
  # Written after the three that were there, without a step on a full cache.
  assert int(caches[2].length) == caches[2].layers[0].keys.shape[2] == 7


@pytest.mark.parametrize("name", ["routed", "merged"])
def test_decoding_copies_no_cache(name):
  sizes = Sizes(1, 2000, (2,), 48)
  pair = latency_programs.make_pair(TINY, None)
  # Keys and values: two sequences, two heads, 2,048 positions of 8 float32.
  layer = 2 * 2 * 2 * 2048 * 8 * 4
  plan = latency_programs.lower(pair, sizes, name, 2).compile()
  plan = plan.memory_analysis()
  assert plan.alias_size_in_bytes >= 2 * layer
  # Scores of four heads at float32 are an eighth of the layer's keys and
  # values; a copy of the keys would be half.
  assert plan.temp_size_in_bytes < 0.4 * layer


def test_the_gpu_config_is_sound():
  found = settings.read(gpu.get_config())
  assert found.models == ["t5_base_x8", "olmoe_1b_7b", "mixtral_8x7b"]
  cut = found.shape("mixtral_8x7b")
  assert cut == models.preset("mixtral_8x7b", num_layers=8)


def test_models_run_apart_and_are_joined(tmp_path, monkeypatch):
  commands = []

  class Ended:
    returncode = 0

  def run(command):
    commands.append(command)
    folder = command[-1].removeprefix("--workdir=")
    name = folder.rpartition("/")[2]
    (tmp_path / name).mkdir()
    reporting.write_summary(folder, {f"{name}/figure": 1})
    ended = Ended()
    ended.returncode = int(name == "b")
    return ended

  monkeypatch.setattr(latency.subprocess, "run", run)
  arguments = {name: [f"--config.models={name}"] for name in "abc"}
  with pytest.raises(ValueError, match=r"\['b'\]"):
    latency.run_apart(arguments, ["--given"], workdir=str(tmp_path))
  summary = reporting.read_json(tmp_path / reporting.SUMMARY)
  assert summary == {"a/figure": 1, "c/figure": 1}
  assert commands[0][1:5] == [
    "-m",
    "experiments.latency",
    "--given",
    "--config.models=a",
  ]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"models": "tinny"}, "did you mean 'tiny'"),
    ({"decode_steps": 0}, "decode_steps=0"),
    ({"decode_batch_sizes": (1, 0)}, r"decode_batch_sizes=\(1, 0\)"),
    ({"active_share": 0.0}, "active_share=0.0"),
    ({"repeats": 0}, "repeats=0"),
    ({"dtype": "int8"}, "dtype='int8'"),
    ({"changes": {"olmoe_1b_7": {"num_layers": 2}}}, "mean 'olmoe_1b_7b'"),
    ({"changes": {"tiny": {"layers": 2}}}, "no field 'layers'"),
  ],
)
def test_refuses_a_config_before_any_work(fields, message):
  with pytest.raises(ValueError, match=message):
    settings.read(make_config(**fields))
