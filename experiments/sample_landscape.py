"""Rewards of a real model's merges all over the simplex, task by task.

  python -m experiments.sample_landscape --config=configs/regret/landscape.py

Merges the experts of a byte model or of a checkpoint with many weights and
measures the log-likelihood and the accuracy of every merge on each task's
validation text. What `experiments.fit_landscape` fits the family `fitted` to.
Letters: N points, V tasks, E experts.
"""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.common import launch, records
from experiments.online import model_source
from experiments.online.model_source import ModelSettings
from tanbr_jax import data
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Whole
from tanbr_jax.environments.oracle import table
from tanbr_jax.report import workdir as reporting
from tanbr_jax.simplex.points import dirichlet
from tanbr_jax.storage import atomic
from tanbr_jax.training.pretraining import PretrainConfig

FILE = "samples.npz"
REWARDS = ("log_likelihood", "accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSettings(ranges.Checked):
  """All that the command reads; see configs/regret/landscape.py."""

  num_points: AtLeastTwo
  num_windows: Count
  seed: Whole


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Measures the points and writes `samples.npz` into the run's folder."""
  settings = records.read(SampleSettings, config)
  if config.model.path:
    source = model_source.open_checkpoint(
      records.read_section(ModelSettings, config, "model")
    )
  else:
    source = model_source.OfBytes(
      records.read_section(PretrainConfig, config, "pretrain")
    )
  cache_dir = data.cache_dir(config.cache_dir or None)
  corpus = source.read_text(None, cache_dir)
  source.check_tasks(len(corpus.task_names))
  folder = reporting.open_workdir(
    workdir,
    config,
    seeds=[settings.seed],
    corpus_fingerprint=corpus.fingerprint,
  )
  made = source.make(corpus, cache_dir=cache_dir, progress=False)
  length = source.context + 1
  windows = data.evaluation_windows(
    data.from_arrays(corpus.splits["validation"], min_length=length),
    settings.num_windows,
    length,
  )
  weights = points(
    jax.random.key(settings.seed), settings.num_points, source.num_experts
  )
  arrays = {"weights": np.asarray(weights)}
  for reward in REWARDS:
    found = table.score_candidates(
      made.model, made.params, weights, windows=windows, reward=reward
    )
    arrays[reward] = np.asarray(found.rewards)
    print(reward, "at the centre", arrays[reward][0].round(4), flush=True)
  if made.task_weights is not None:
    arrays["task_weights"] = np.asarray(made.task_weights)
  atomic.write_arrays(folder / FILE, arrays)


def points(key: jax.Array, num_points: int, num_experts: int) -> jax.Array:
  """Returns [num_points, E]: centre, vertices, then draws.

  Draws are of Dirichlet(a) with a log-uniform in [.1, 10]: from sparse weights
  to some near the centre.

  Args:
    key: random key, consumed.
    num_points: how many in all; the first are kept if there are fewer.
    num_experts: E.
  """
  shape_key, draw_key = jax.random.split(key)
  fixed = jnp.concatenate(
    [
      jnp.full((1, num_experts), 1 / num_experts, jnp.float32),
      jnp.eye(num_experts, dtype=jnp.float32),
    ]
  )
  logs = jax.random.uniform(shape_key, (num_points, 1), jnp.float32, -1, 1)
  draws = dirichlet(draw_key, 10.0**logs, (num_points, num_experts))
  return jnp.concatenate([fixed, draws])[:num_points]


if __name__ == "__main__":
  launch.start(
    run, config="configs/regret/landscape.py", workdir="runs/landscape"
  )
