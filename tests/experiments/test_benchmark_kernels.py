import math

import pytest

from configs.kernels import gpu as config_file
from experiments import benchmark_kernels, kernel_table
from experiments.kernels import bench as kernel_bench
from experiments.kernels.shapes import Ceilings, Work
from tanbr_jax.report import workdir as reporting


def tiny_config(**changes):
  config = config_file.get_config()
  config.update(
    {
      "shapes": "tiny",
      "tokens": "3",
      "rows": "merging,routed,merged,forced,torch",
      "repeats": 2,
      "min_ms": 0.1,
      "xla_max_tokens": 2,
      "ceiling_bytes": 100_000,
      "matmul_size": 64,
      "threads": 2,
    }
    | changes
  )
  return config


@pytest.mark.slow
def test_a_run_writes_every_row(tmp_path, monkeypatch, capsys):
  reason = "PyTorch is not installed"
  monkeypatch.setattr(kernel_bench.torch_queue, "why_not", lambda: reason)
  benchmark_kernels.run(tiny_config(), workdir=str(tmp_path))
  out = capsys.readouterr().out
  assert f"without PyTorch's rows: {reason}" in out
  found = reporting.read_json(tmp_path / "summary.json")
  (run,) = found["runs"]
  assert run["device"] == found["device"]
  assert run["versions"]["jax"] and "torch" in run["versions"]
  assert all(value > 0 for value in run["ceilings"].values())
  rows = {(r["tokens"], r["row"]): r for r in found["rows"]}
  merging = ["copy", "merge", "merge_16", "merge_einsum"]
  block = ["routed", "merged", "routed/mosaic_gpu", "routed/tokamax"]
  # The reference is not timed above `xla_max_tokens`.
  assert set(rows) == {(None, n) for n in merging} | {(3, n) for n in block}
  for (_, name), row in rows.items():
    if "error" in row:
      assert name in ("routed/mosaic_gpu", "routed/tokamax")
      assert row["error"].startswith("ValueError: implementation=")
    else:
      assert 0 < row["low_us"] <= row["median_us"] <= row["high_us"]
      expected = row["median_us"] / row["floor_us"]
      assert math.isclose(row["x_floor"], expected)
  assert rows[3, "routed"]["single_us"] > 0
  assert rows[3, "merged"]["awaited_us"] > 0
  assert "tiny" in kernel_table.text(found)


def test_no_point_is_begun_when_time_is_up(tmp_path, capsys):
  config = tiny_config(max_seconds=0.0)
  benchmark_kernels.run(config, workdir=str(tmp_path))
  assert "out of time before tiny" in capsys.readouterr().out
  assert not (tmp_path / "summary.json").exists()


def test_a_chain_is_about_a_millisecond():
  ceilings = Ceilings(copy=1e12, read=1e12, matmul=1e15)
  lengths = [
    kernel_bench.chain_length(Work(seconds * 1e12), ceilings)
    for seconds in (1e-5, 2.5e-4, 1e-2)
  ]
  assert lengths == [16, 4, 2]


def test_what_fails_when_it_runs_is_kept_apart():
  class Queue:
    def __init__(self, error=None):
      self.error = error

    def run(self, programs):
      if self.error:
        raise self.error

  sound, error = Queue(), RuntimeError("out of memory")
  found = kernel_bench.split(
    {"sound": sound, "compiled": Queue(error), "not": ValueError("shape")}
  )
  assert found[0] == {"sound": sound}
  assert [str(e) for e in found[1].values()] == ["out of memory", "shape"]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"shapes": "mixtrl"}, "unknown shape 'mixtrl', did you mean 'mixtral'"),
    ({"rows": "routed,pats"}, "unknown row 'pats', did you mean 'parts'"),
    (
      {"tokens": "16,0"},
      "tokens must be .* positive integers, got tokens='16,0'",
    ),
    ({"tokens": "many"}, "got tokens='many'"),
  ],
)
def test_mistakes_are_found_before_any_work(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message) as raised:
    benchmark_kernels.run(tiny_config(**changes), workdir=str(tmp_path / "run"))
  assert "\n" not in str(raised.value)
  assert not (tmp_path / "run").exists()


def test_the_command_is_told_without_its_folder():
  found = benchmark_kernels.command(
    ["--workdir=/home/me/run", "--config.shapes=olmoe"]
  )
  assert found == (
    "python -m experiments.benchmark_kernels --config.shapes=olmoe"
  )
