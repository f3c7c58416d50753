"""The README's tables of the study, from kept figures by hand."""

import pytest

from experiments.compress import figures, merging_readme, readme_tables
from experiments.compress import merging_tables as merging
from experiments.compress.stages import WHOLE
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

ABOUT = {
  "corpus_fingerprint": "f",
  "versions": {"jax": "9.9"},
  "device": "abacus x1",
}


def method_row(seed, method, sparsity, scope, domain, accuracy, **more):
  return {
    "seed": seed,
    "method": method,
    "sparsity": sparsity,
    "scope": scope,
    "domain": domain,
    "loss_in": 2 * (1 - accuracy),
    "accuracy_in": accuracy,
    **more,
  }


def methods_of(seed):
  everything = "generalist by tokens"
  rows = [
    method_row(seed, WHOLE, 0.0, "specialist", "a", 0.5),
    method_row(seed, WHOLE, 0.0, everything, "all", 0.75),
  ]
  for method, fall in (("random", 0.25), ("peu", 0.125)):
    for sparsity in (0.25, 0.5):
      share = fall * 2 * sparsity
      rows += [
        method_row(seed, method, sparsity, "specialist", "a", 0.5 - share),
        method_row(seed, method, sparsity, everything, "all", 0.75 - share),
      ]
  rows += [method_row(seed, "peu", 0.5, "union", "all", 0.25)]
  return rows


def write_run(folder, about, **stages):
  (folder / "statistics").mkdir(parents=True)
  atomic.write_json(folder / reporting.CONFIG, about)
  calibration = {"tokens": 1234, "seconds": 5.0}
  atomic.write_json(folder / "statistics" / "0.json", calibration)
  for stage, by_seed in stages.items():
    for seed, rows in enumerate(by_seed):
      atomic.write_json(folder / f"{stage}-{seed}.json", {"rows": rows})
  return folder


@pytest.fixture
def runs(tmp_path):
  rho = {"seed": 0, "method": "peu", "layer": 0, "rho": 0.5}
  return (
    write_run(
      tmp_path / "first", ABOUT, methods=[methods_of(0), methods_of(1)]
    ),
    write_run(tmp_path / "second", ABOUT, truth=[[rho]]),
  )


def test_a_row_holds_all_of_a_score(runs):
  """At 50 % random loses 25 points and .5 nats, PEU half of them."""
  kept = readme_tables.collect(",".join(map(str, runs)))
  assert kept["seeds"] == {"methods": 2, "truth": 1}
  text = readme_tables.to_markdown(kept)
  assert "jax 9.9, abacus x1" in text and "reads 1,234 tokens in 5 s" in text
  assert "loss is 1.000 nats" in text and "accuracy 0.500" in text
  lines = text.splitlines()
  place = next(i for i, line in enumerate(lines) if line.startswith("| score"))
  titles = [cell.strip() for cell in lines[place].split("|")[1:-1]]
  rows = [
    dict(zip(titles, (c.strip() for c in line.split("|")[1:-1]), strict=True))
    for line in lines[place + 2 : place + 5]
  ]
  assert [row["score"] for row in rows] == [
    *("peu", "random", "(union of specialists)"),
  ]
  assert rows[0]["25 %"] == "-6.2" and rows[1]["25 %"] == "-12.5"
  assert rows[0]["50 %"] == "-12.5 [-12.5, -12.5]"
  assert rows[0]["loss"] == "0.250 [0.250, 0.250]"
  assert rows[0]["truth"] == "0.50" and rows[1]["truth"] == "-"
  assert rows[1]["all domains, 50 %"] == "-25.0 [-25.0, -25.0]"
  assert rows[2]["all domains, 50 %"] == "-50.0 [-50.0, -50.0]"
  assert rows[2]["50 %"] == "-"


def test_runs_of_other_circumstances_are_not_joined(runs, tmp_path):
  other = write_run(tmp_path / "third", ABOUT | {"device": "stones x1"})
  with pytest.raises(ValueError, match="runs differ in .*stones"):
    readme_tables.collect(f"{runs[0]},{other}")


def merging_row(form, method, variant, loss):
  return {
    "seed": 0,
    "form": form,
    "method": method,
    "variant": variant,
    "loss": loss,
    "accuracy": 0.5,
    "match": 0.25,
    "expert_bytes": 800 if method == WHOLE else 100,
  }


def test_both_forms_of_a_merge_are_one_row(tmp_path):
  rows = [
    merging_row("one block", WHOLE, "plain", 1.0),
    merging_row("one block", "average", "plain", 1.5),
    merging_row("one block", "average", "aligned", 1.25),
    merging_row("one block", "average", "scaled", 1.125),
    merging_row("groups", "average", "plain", 1.75),
    # Aligned in any case.
    merging_row("groups", "(REAM as published)", "aligned", 2.0),
  ]
  config = {"calibration_windows": 7, "merging": {"recovery_steps": 3}}
  run = write_run(tmp_path / "run", ABOUT | {"config": config}, merging=[rows])
  kept = merging_readme.collect(run)
  text = merging_readme.to_markdown(kept)
  assert "on 7 windows" in text and "loss is 1.000" in text
  assert "by at most 0.250." in text
  assert "one block (12.5% of the experts' bytes): plain" in text
  assert "| average | 0.500 | 0.125 | 0.25 | 0.750 | - | 0.25 |" in text
  assert "| (REAM as published) | - | - | - | 1.000 | - | 0.25 |" in text
  figures.gaps(tmp_path / "gaps.png", kept["summary"])
  assert (tmp_path / "gaps.png").stat().st_size > 1000
  assert merging.names(kept["summary"], "groups", ("plain",)) == ["average"]
