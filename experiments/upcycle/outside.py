"""A written merge in transformers, and what serving it costs.

  python -m experiments.upcycle.outside --checkpoint=runs/upcycle/domains_0 \
    --merged=runs/merged_python --task=python

Merges a checkpoint of `experiments.upcycle` with the table's weights of a task
into a dense folder, unless it is there. Prints the bytes and the latency of a
slot, merged and routed, then the perplexity of that folder on the task's test
text here and in transformers, both in float32. Peak bytes are those of the form
alone, hence told where the folder was there. Tokens a second are measured by
`experiments.merge_checkpoint.generation` on the same two folders.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.common import launch
from experiments.upcycle.command import RECORD
from tanbr_jax import data, models
from tanbr_jax.report import workdir as reporting
from tanbr_jax.timing import serving


def write_merged(checkpoint: Path, merged: Path, task: str) -> None:
  """Writes the dense checkpoint of a task's own weights."""
  record = reporting.read_json(checkpoint / RECORD)
  names, table = record["task_names"], record["task_weights"]
  if table is None or task not in names:
    raise ValueError(
      f"task must be one of {names} of a recipe with a table, got {task!r}"
    )
  model, params = models.from_pretrained(checkpoint)
  weights = jnp.asarray(table[names.index(task)], jnp.float32)
  models.save_dense(*models.merge(model, params, weights), merged)


def test_windows(
  folder: Path, text: str | None, task: str, count: int, length: int
) -> np.ndarray:
  """[n, S + 1] int32, windows of a task's test text."""
  corpus = data.tokenise_corpus(
    data.load_corpus(text, context=length),
    models.read_tokenizer(folder),
    vocab_size=json.loads((folder / "config.json").read_text())["vocab_size"],
    context=length - 1,
    min_windows={"test": 1},
  )
  text = corpus.splits["test"][corpus.task_names.index(task)]
  windows = data.evaluation_windows(data.from_arrays([text]), count, length)
  return np.asarray(windows[0], np.int32)


def our_loss(folder: Path, windows: np.ndarray) -> float:
  """Mean loss, nats a token."""
  model, params = models.from_pretrained(folder, dtype="float32")
  with jax.default_matmul_precision("float32"):
    scores = jax.jit(lambda p, w: models.score(model, p, w))(
      params, jnp.asarray(windows)
    )
  return float(jnp.mean(scores.loss))


def their_loss(folder: Path, windows: np.ndarray) -> float:
  """The same of transformers."""
  import torch
  import transformers

  model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  ).eval()
  ids = torch.from_numpy(windows).long()
  losses = []
  with torch.no_grad():
    for row in ids:
      logits = model(row[None, :-1]).logits[0]
      losses.append(torch.nn.functional.cross_entropy(logits, row[1:]).item())
  return float(np.mean(losses))


def print_costs(
  merged: Path,
  checkpoint: Path,
  input_ids: np.ndarray,
  *,
  repeats: int,
  has_peaks: bool,
) -> None:
  """Bytes of each form alone, the merged one first, then a slot's times."""
  input_ids = jnp.asarray(input_ids)
  for name, folder in (("merged", merged), ("routed", checkpoint)):
    model, params = models.from_pretrained(folder)
    forward = jax.jit(lambda p, ids, m=model: m.apply(p, input_ids=ids))
    jax.block_until_ready(forward(params, input_ids))
    print(f"{name}/parameter_bytes: {_num_bytes(params):,}")
    if has_peaks:
      stats = jax.local_devices()[0].memory_stats() or {}
      print(f"{name}/peak_bytes: {stats.get('peak_bytes_in_use')}")
    if name == "merged":
      del params
  experts = model.config.num_experts
  costs = serving.slot_costs(
    model,
    params,
    merge_weights=jnp.full(experts, 1 / experts, jnp.float32),
    input_ids=input_ids,
    repeats=repeats,
  )
  for name, value in costs.items():
    print(f"{name}: {value:,.4f}")


def _num_bytes(params: models.Params) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    given = flags.FLAGS
    checkpoint, merged = Path(given.checkpoint), Path(given.merged)
    has_peaks = merged.exists()
    if not has_peaks:
      write_merged(checkpoint, merged, given.task)
    windows = test_windows(
      merged, given.data, given.task, given.windows, given.length + 1
    )
    print_costs(
      merged,
      checkpoint,
      windows[:8, :-1],
      repeats=given.repeats,
      has_peaks=has_peaks,
    )
    for name, loss in (("tanbr_jax", our_loss), ("transformers", their_loss)):
      found = loss(merged, windows)
      print(f"{name}: loss {found:.6f}, perplexity {math.exp(found):.5f}")


if __name__ == "__main__":
  flags.DEFINE_string("checkpoint", None, "Of upcycle.", required=True)
  flags.DEFINE_string("merged", None, "Its dense folder.", required=True)
  flags.DEFINE_string("data", None, "Folder of text; built-in if not given.")
  flags.DEFINE_string("task", "python", "Whose weights and text are taken.")
  flags.DEFINE_integer("windows", 32, "Windows of test text.", lower_bound=1)
  flags.DEFINE_integer("length", 256, "Tokens of a window.", lower_bound=1)
  flags.DEFINE_integer("repeats", 50, "Timed calls.", lower_bound=1)
  app.run(main)
