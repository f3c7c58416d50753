"""What alignment and scale are worth on models that were only ever routed.

  python -m experiments.merge_checkpoint.effects --write

Trains two small models of bytes a seed, whose experts are copies of one dense
model or were drawn independently, merges each with the router's usage, with and
without alignment and scale, and scores all on test text. Prints the table,
keeps it in `effects.json` and, with `--write`, puts it in the README; with
`--kept` it trains nothing. Run time: three minutes a seed on two CPU cores.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.common import launch, readme_block
from experiments.merge_checkpoint import calibration
from tanbr_jax import data, models
from tanbr_jax.storage import atomic
from tanbr_jax.training import loop, objectives, pretraining

NAME = "effects"
RESULTS = Path(__file__).with_name("effects.json")
# Half as wide as the model of configs/pretrain/quick.py.
CONFIG = pretraining.PretrainConfig(
  num_layers=2,
  model_dim=64,
  expert_dim=256,
  batch_size=32,
  num_steps=300,
  routed_every=1,
)
# Windows of each of the tasks.
CALIBRATION_WINDOWS, TEST_WINDOWS = 16, 64
SCALES = ("off", "scalar", "per_dimension")


def collect(
  config: pretraining.PretrainConfig,
  corpus: data.Corpus,
  *,
  cache_dir: Path | None,
  progress: bool = True,
) -> dict[str, Any]:
  """The loss of every row, nats a byte.

  Args:
    config: of both models.
    corpus: trained on "train", calibrated on "validation", scored on "test".
    cache_dir: where the model with a dense start is kept.
    progress: whether bars are drawn.
  """
  length = config.context + 1
  windows = {
    split: np.asarray(
      data.evaluation_windows(
        data.from_arrays(corpus.splits[split], min_length=length), num, length
      )
    ).reshape(-1, length)
    for split, num in (
      ("validation", CALIBRATION_WINDOWS),
      ("test", TEST_WINDOWS),
    )
  }
  copies = pretraining.pretrain(
    config, corpus, cache_dir=cache_dir, progress=progress
  )
  trained = {
    "copies of one": copies.params,
    "independent": _train_independent(config, corpus, progress),
  }
  rows = []
  for origin, params in trained.items():
    for row, model, found in _forms(
      copies.model, params, windows["validation"]
    ):
      loss = models.score(model, found, jnp.asarray(windows["test"])).loss
      rows.append({"experts": origin, **row, "loss": float(jnp.mean(loss))})
  return {
    "rows": rows,
    "num_steps": config.num_steps,
    "calibration_tokens": windows["validation"][:, 1:].size,
    "test_tokens": windows["test"][:, 1:].size,
  }


def _train_independent(
  config: pretraining.PretrainConfig, corpus: data.Corpus, progress: bool
) -> models.Params:
  """A model whose experts were drawn one by one, trained as the other one."""
  model = config.make_model()
  text = data.from_arrays(corpus.splits["train"], min_length=config.context + 1)
  losses = {
    name: jnp.float32(getattr(config, name))
    for name in ("load_balance", "z_loss")
  }

  def loss(
    text: data.TaskText, losses: Any, params: Any, key: jax.Array
  ) -> jax.Array:
    return objectives.routed_loss(
      text,
      losses,
      params,
      key,
      model=model,
      context=config.context,
      batch_size=config.batch_size,
    )

  num_steps = config.dense_steps + config.num_steps
  found = loop.train(
    [jax.tree_util.Partial(loss, text, losses)],
    {"model": jax.jit(model.init)(jax.random.key(config.seed))},
    optimiser=loop.adamw(
      learning_rate=config.learning_rate,
      num_steps=num_steps,
      warmup_steps=min(config.warmup_steps, num_steps - 1),
      weight_decay=config.weight_decay,
      clip_norm=config.clip_norm,
    ),
    num_steps=num_steps,
    seed=config.seed,
    tokens_per_step=config.batch_size * config.context,
    progress=progress,
    name="independent experts",
  )
  return found["model"]


def _forms(
  model: models.Model, params: models.Params, windows: np.ndarray
) -> Iterator[tuple[dict[str, Any], models.Model, models.Params]]:
  """The routed model and every merged one."""
  yield {"form": "routed"}, model, params
  ids = windows[:, :-1]
  weights = calibration.usage_weights(model, params, ids)
  most_used = np.argmax(weights, axis=1).tolist()
  for is_aligned in (False, True):
    experts = params
    if is_aligned:
      experts = models.align_experts(model, params, reference=most_used)
    dense, merged = models.merge(model, experts, weights)
    for scale in SCALES:
      scaled = merged
      if scale != "off":
        scaled = models.match_scale(model, experts, merged, ids, mode=scale)
      row = {"form": "merged", "aligned": is_aligned, "scale": scale}
      yield row, dense, scaled


def table(results: dict[str, Any]) -> str:
  """The rows as Markdown: means over seeds, the least and the largest."""
  lines = []
  for same in zip(*(one["rows"] for one in results["seeds"]), strict=True):
    row, losses = same[0], [row["loss"] for row in same]
    lines.append(
      [
        row["experts"],
        row["form"],
        {True: "yes", False: "no"}.get(row.get("aligned"), "-"),
        row.get("scale", "-"),
        f"{np.mean(losses):.3f} [{min(losses):.3f}, {max(losses):.3f}]",
      ]
    )
  titles = ["experts", "form", "aligned", "scale", "loss, nats a byte"]
  made = readme_block.table(titles, lines)
  first = results["seeds"][0]
  return (
    f"Means over {len(results['seeds'])} seeds, in brackets the least and the "
    f"largest; {first['num_steps']} steps, {first['calibration_tokens']:,} "
    f"bytes of calibration, {first['test_tokens']:,} of test text; jax "
    f"{results['jax']}, CPU.\n\n{made}"
  )


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    if not flags.FLAGS.kept:
      cache = data.cache_dir(None)
      corpus = data.load_corpus(None, cache, context=CONFIG.context)
      found = [
        collect(dataclasses.replace(CONFIG, seed=seed), corpus, cache_dir=cache)
        for seed in range(flags.FLAGS.seeds)
      ]
      atomic.write_json(RESULTS, {"seeds": found, "jax": jax.__version__})
    made = table(atomic.read_json(RESULTS))
    print(made)
    if flags.FLAGS.write:
      readme = RESULTS.with_name("README.md")
      text = readme_block.replace(readme.read_text("utf-8"), NAME, made)
      atomic.write_text(readme, text)


if __name__ == "__main__":
  flags.DEFINE_integer("seeds", 2, "How many.", lower_bound=1)
  flags.DEFINE_bool("kept", False, "Make the table of the kept results.")
  flags.DEFINE_bool("write", False, "Put it between the README's markers.")
  app.run(main)
