"""Tokens a second of a checkpoint, routed and merged, beside transformers.

  python -m experiments.merge_checkpoint.generation --checkpoint=IN --merged=OUT
  python -m experiments.merge_checkpoint.generation --checkpoint=IN \
    --merged=OUT --library=transformers

Reads the checkpoint, merges it evenly into a dense folder (the second command
reads that folder), and continues the same random prompts of 32 tokens by 64,
greedily. Prints the seconds from reading to the first token, compilation
included, and the median rate of five calls after two more. The library
`transformers_static` is transformers with a static cache, for which it compiles
decoding with `torch.compile` on a GPU. `--forms=merged` measures one form.
"""

import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.common import launch
from tanbr_jax import models
from tanbr_jax.report import tables
from tanbr_jax.timing import latency

PROMPT, NEW = 32, 64
BATCHES = (1, 16)
LIBRARIES = ("tanbr_jax", "transformers", "transformers_static")
FORMS = ("routed", "merged")
# [B, S] prompts and a number of new tokens -> ids, on the host.
Generate = Callable[[np.ndarray, int], np.ndarray]


def ours(checkpoint: Path, merged: Path) -> Iterator[tuple[str, Callable]]:
  """Name -> what reads a model and returns its `Generate` and vocabulary."""

  def bind(model: Any, params: models.Params) -> tuple[Generate, int]:
    def generate(prompts: np.ndarray, count: int) -> np.ndarray:
      ids = models.generate(
        model,
        params,
        jnp.asarray(prompts),
        max_new_tokens=count,
        eos_token_ids=(),
      )
      return np.asarray(ids)

    return generate, model.config.vocab_size

  def routed() -> tuple[Generate, int]:
    model, params = models.from_pretrained(checkpoint)
    if not merged.exists():
      experts = model.config.num_experts
      even = jnp.full(experts, 1 / experts, jnp.float32)
      models.save_dense(*models.merge(model, params, even), merged)
    return bind(model, params)

  def dense() -> tuple[Generate, int]:
    if not merged.exists():
      routed()
    return bind(*models.from_pretrained(merged))

  yield "routed", routed
  yield "merged", dense


def theirs(
  checkpoint: Path, merged: Path, *, cache: str | None = None
) -> Iterator[tuple[str, Callable]]:
  """The same of transformers, on the first GPU if there is one."""
  import torch
  import transformers

  device = "cuda" if torch.cuda.is_available() else "cpu"

  def read(path: Path) -> tuple[Generate, int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(
      path, dtype="auto"
    ).to(device)

    def generate(prompts: np.ndarray, count: int) -> np.ndarray:
      ids = torch.from_numpy(prompts).long().to(device)
      found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
        cache_implementation=cache,
      )
      return found.cpu().numpy()

    return generate, model.config.vocab_size

  yield "routed", lambda: read(checkpoint)
  yield "merged", lambda: read(merged)


def measure(
  readers: Iterable[tuple[str, Callable]],
) -> list[dict[str, str]]:
  """A row of the table for each model, one in memory at a time.

  A row is printed as soon as it is there, as a line of JSON.
  """
  rows = []
  for name, read in readers:
    begin = time.perf_counter()
    generate, vocab_size = read()
    draws = np.random.default_rng(0).integers(
      0, vocab_size, (max(BATCHES), PROMPT), np.int32
    )
    generate(draws[:1], 1)
    row = {
      "model": name,
      "to first token, s": f"{time.perf_counter() - begin:.1f}",
    }
    for batch in BATCHES:
      prompts = draws[:batch]
      took = latency.wall_times(
        {"": lambda p=prompts, g=generate: g(p, NEW)}, repeats=5, warmup=2
      )
      rate = batch * NEW / (took[""].median / 1e3)
      row[f"tokens/s, batch {batch}"] = f"{rate:,.0f}"
    rows.append(row)
    print(json.dumps(row), flush=True)
    del generate
    jax.clear_caches()
  return rows


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    given = flags.FLAGS
    forms = launch.names(given.forms, known=FORMS, kind="form")
    find = {
      "tanbr_jax": ours,
      "transformers": theirs,
      "transformers_static": functools.partial(theirs, cache="static"),
    }[given.library]
    folders = Path(given.checkpoint), Path(given.merged)
    readers = [one for one in find(*folders) if one[0] in forms]
    tables.print_rows(measure(readers))


if __name__ == "__main__":
  flags.DEFINE_string("checkpoint", None, "A folder.", required=True)
  flags.DEFINE_string("merged", None, "Its merged form.", required=True)
  flags.DEFINE_enum("library", LIBRARIES[0], LIBRARIES, "Which is measured.")
  flags.DEFINE_string("forms", ",".join(FORMS), "A comma list of forms.")
  app.run(main)
