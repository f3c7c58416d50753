import math

import pytest

from experiments import kernel_table
from experiments.common import readme_block
from experiments.kernels import results as kernel_results
from experiments.kernels import targets as kernel_targets
from experiments.kernels.results import Results
from experiments.kernels.rows import Row
from experiments.kernels.shapes import Ceilings, Work
from tanbr_jax.report import workdir
from tanbr_jax.timing.latency import Latency

CEILINGS = Ceilings(copy=2e12, read=1e12, matmul=4e14)
RUN = {
  "device": "gpu x1",
  "versions": {"jax": "0.11.2", "torch": None},
  "ceilings": CEILINGS._asdict(),
  "command": "python -m experiments.benchmark_kernels",
}


def record(shape, tokens, row, median, num_bytes=2e9):
  """`median` is in milliseconds; the floor is 1 ms for 2 GB."""
  took = Latency(median, median - 0.1, median + 0.1)
  work = Row(None, (), Work(num_bytes, 1e9), Work(2 * num_bytes, 1e9))
  return kernel_results.timed(
    (shape, tokens, row), took, work, CEILINGS, timing="chain"
  )


@pytest.fixture
def results(tmp_path):
  store = Results(tmp_path / "summary.json", run=RUN)
  store.add(
    [
      record("mixtral", None, "copy", 2.0, 4e9),
      record("mixtral", None, "merge", 1.0, 1.8e9),
      record("mixtral", 16, "routed", 3.0),
      record("mixtral", 16, "merged", 0.5),
      record("mixtral", 4096, "routed", 1.4),
      record("mixtral", 4096, "masked", 0.7),
      record("mixtral", 4096, "merged", 0.7),
      record("mixtral", 4096, "torch/out_in/unsort", 1.5),
      record("mixtral", 4096, "torch/in_out/unsort", 1.3),
      kernel_results.failed(
        ("mixtral", 4096, "routed/tokamax"), ValueError("not\ninstalled")
      ),
    ]
  )
  return workdir.read_json(tmp_path / "summary.json")


def test_a_record(results):
  found = results["rows"][0]
  assert found == {
    "shape": "mixtral",
    "tokens": None,
    "row": "copy",
    "median_us": 2000.0,
    "low_us": pytest.approx(1900.0),
    "high_us": pytest.approx(2100.0),
    "timing": "chain",
    "bytes": 4e9,
    "flops": 1e9,
    # The larger of the two bandwidths.
    "floor_us": 2000.0,
    "x_floor": 1.0,
    "all_experts_floor_us": 4000.0,
    "run": 0,
  }
  assert results["rows"][-1]["error"] == "ValueError: not"
  assert results["device"] == "gpu x1"


def test_later_runs_add_to_the_file(results, tmp_path):
  path = tmp_path / "summary.json"
  store = Results(path, run=RUN | {"command": "again"})
  store.add(
    [record("mixtral", 16, "routed", 9.0), record("olmoe", 1, "x", 1.0)]
  )
  found = workdir.read_json(path)
  assert [run["command"] for run in found["runs"]] == [RUN["command"], "again"]
  assert len(found["rows"]) == len(results["rows"]) + 1
  lookup = kernel_results.Lookup(found)
  assert lookup.record("mixtral", 16, "routed")["run"] == 1
  assert lookup.value("mixtral", 16, "routed") == 9000.0
  with pytest.raises(ValueError, match="results of 'gpu x1', this is 'cpu x1'"):
    Results(path, run=RUN | {"device": "cpu x1"})


def test_lookup(results):
  lookup = kernel_results.Lookup(results)
  assert lookup.fastest("mixtral", 4096, "torch")["median_us"] == 1300.0
  assert lookup.record("mixtral", 4096, "routed/tokamax") is None
  assert math.isnan(lookup.value("olmoe", 16, "routed"))
  assert lookup.points == [
    ("mixtral", None),
    ("mixtral", 16),
    ("mixtral", 4096),
  ]


def test_targets(results):
  found = {t.title: t for t in kernel_targets.targets(results)}
  values = {title: (t.measured, t.is_met) for title, t in found.items()}
  assert values == {
    # 1.8 GB in 1 ms over 4 GB in 2 ms.
    "one merge / copy, bandwidth, Mixtral-8x7B": (pytest.approx(0.9), True),
    "routed / floor, 4,096 tokens, Mixtral-8x7B": (pytest.approx(1.4), True),
    # 2 GB at the read bandwidth of 1 TB/s are 2 ms.
    "routed / reading the active experts, 16 tokens, Mixtral-8x7B": (
      pytest.approx(1.5),
      False,
    ),
    "routed / PyTorch's grouped block, worst size, Mixtral-8x7B": (
      pytest.approx(1.4 / 1.3),
      False,
    ),
    "routed / merged, 16 tokens, Mixtral-8x7B": (pytest.approx(6.0), True),
    "merged / routed, worst size, Mixtral-8x7B": (pytest.approx(0.5), True),
    "15 % of the pairs / routed, 4,096 tokens, Mixtral-8x7B": (
      pytest.approx(0.5),
      False,
    ),
  }


def test_tables(results):
  text = kernel_table.text(results)
  caption, merging, blocks, reached = text.split("\n\n")
  assert caption.startswith("gpu x1, bfloat16, jax 0.11.2; ")
  assert "copy 2.00 TB/s" in caption and "400 TFLOP/s" in caption
  assert merging.splitlines()[2] == (
    "| Mixtral-8x7B | 0.94 | 2.00 | 1.80 (90 %) | - | - |"
  )
  assert blocks.splitlines()[2:] == [
    "| Mixtral-8x7B | 16 | 1,000 | 3,000 (3.00) | - | - | - | - | 500 (6.00) |",
    "| Mixtral-8x7B | 4,096 | 1,000 | 1,400 (1.40) | - | 1,300 | - | "
    "700 (0.70) | 700 (2.00) |",
  ]
  assert (
    "| routed / merged, 16 tokens, Mixtral-8x7B | at least 5 | 6.00 | yes |"
    in (reached)
  )


def test_a_folder_without_results(tmp_path):
  with pytest.raises(ValueError, match="no summary.json: not a run"):
    kernel_table.collect(tmp_path)


def test_the_readme_holds_what_the_committed_results_make():
  results = kernel_table.RESULTS
  readme = results.with_name("README.md").read_text("utf-8")
  made = kernel_table.text(workdir.read_json(results))
  assert readme_block.block(readme, kernel_table.NAME) == made
