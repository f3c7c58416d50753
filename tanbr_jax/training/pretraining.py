"""Pre-training of a model of experts that can be merged.

Experts that were only ever routed do not average into anything useful, so the
merged form itself is trained: a step draws a task mix psi, text of that mix,
and the merge weights x = psi A that a table A [V, E] gives to the mix; its loss
is the merged model's. Every few steps the routed form of the same parameters
takes a step, so that the router is of use. A short dense start trains one FFN
whose copies become the experts. [R] reconstruction: the paper takes a
pre-trained model as given and does not say how its experts became mergeable.

Letters: V tasks, E experts, B windows, S tokens of context.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tanbr_jax import data, models
from tanbr_jax.storage import atomic, cache
from tanbr_jax.storage.numerics import differences, numerics
from tanbr_jax.training import loop, objectives
from tanbr_jax.training.pretrain_config import PretrainConfig

__all__ = ["PretrainConfig", "Pretrained", "cache_key", "pretrain"]

FINISHED = "finished.json"


class Pretrained(NamedTuple):
  """A finished pre-training.

  Attributes:
    model: the routed model.
    params: its parameters.
    task_weights: [V, E] the table that training used. A bandit never sees it.
    seconds: wall clock of the training, compilation included; None if the
      model came from the cache.
    path: its folder in the cache, None without one.
  """

  model: models.Model
  params: models.Params
  task_weights: jax.Array
  seconds: float | None
  path: Path | None


def pretrain(
  config: PretrainConfig,
  corpus: data.Corpus,
  *,
  cache_dir: str | os.PathLike[str] | None = None,
  progress: bool = True,
) -> Pretrained:
  """Trains a mergeable model, or reads it if it has been trained before.

  Args:
    config: what is trained, and how.
    corpus: its "train" split is used, nothing else.
    cache_dir: where trained models are kept, by config, corpus and JAX's
      numerics. A training that was interrupted has no finished marker there and
      goes on from its last checkpoint; while another process trains the same
      model this one waits for it. None keeps nothing.
    progress: whether bars are drawn.

  Returns:
    The model, its parameters and the table.

  Raises:
    ValueError: a table that does not fit the tasks; a task with less text than
      a window; a loss that is not finite.
  """
  config.check_tasks(len(corpus.task_names))
  text = data.from_arrays(corpus.splits["train"], min_length=config.context + 1)
  if cache_dir is None:
    params, seconds = _train(config, text, None, progress)
    return _make(config, params, None, seconds)
  path = Path(cache_dir) / f"pretrain-{cache_key(config, corpus)}"

  def make() -> Pretrained:
    # Without its marker a broken entry counts as one that was interrupted.
    (path / FINISHED).unlink(missing_ok=True)
    params, seconds = _train(config, text, path, progress)
    _save(config, corpus, params, path, seconds)
    return _make(config, params, path, seconds)

  return cache.fetch(path, read=lambda: _load(config, corpus, path), make=make)


def _train(
  config: PretrainConfig,
  text: data.TaskText,
  path: Path | None,
  progress: bool,
) -> tuple[dict[str, Any], float]:
  """The trained parameters and the seconds that they took."""
  start = time.perf_counter()
  params = _train_dense(config, text, path, progress)
  params = _train_experts(config, text, params, path, progress)
  jax.block_until_ready(params)
  return params, time.perf_counter() - start


def _make(
  config: PretrainConfig,
  params: dict[str, Any],
  path: Path | None,
  seconds: float | None,
) -> Pretrained:
  return Pretrained(
    model=config.make_model(),
    params=params["model"],
    task_weights=jax.nn.softmax(params["table"], axis=-1),
    seconds=seconds,
    path=path,
  )


def _about(config: PretrainConfig, corpus: data.Corpus) -> dict[str, Any]:
  """All that decides a pre-training, as JSON holds it."""
  return {
    "config": dataclasses.asdict(config),
    "corpus_fingerprint": corpus.fingerprint,
    "numerics": numerics(),
  }


def _save(
  config: PretrainConfig,
  corpus: data.Corpus,
  params: dict[str, Any],
  path: Path,
  seconds: float,
) -> None:
  checksum = loop.save(path / "params", params)
  about = _about(config, corpus) | {"seconds": seconds, "params": checksum}
  atomic.write_json(path / FINISHED, about)
  # Optimiser states, three times the size of the model, are of no use now.
  for phase in ("dense", "experts"):
    shutil.rmtree(path / phase, ignore_errors=True)


def _load(
  config: PretrainConfig, corpus: data.Corpus, path: Path
) -> Pretrained:
  """Reads a finished pre-training.

  Raises:
    FileNotFoundError: it is not finished.
    ValueError: its folder was damaged or holds another one.
  """
  finished = atomic.read_json(path / FINISHED, strict=True)
  if differing := differences(finished, _about(config, corpus)):
    raise ValueError(f"{path} holds another pre-training: {differing}")
  model = config.make_model()
  size = (len(corpus.task_names), config.num_experts)
  like = {
    "model": jax.eval_shape(model.init, jax.random.key(0)),
    "table": jax.ShapeDtypeStruct(size, jnp.float32),
  }
  params = loop.load(path / "params", like, checksum=finished["params"])
  return _make(config, params, path, None)


def cache_key(config: PretrainConfig, corpus: data.Corpus) -> str:
  """Names a pre-training by its config, text and JAX's numerics."""
  content = json.dumps(_about(config, corpus), sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()[:16]


def _train_dense(
  config: PretrainConfig,
  text: data.TaskText,
  path: Path | None,
  progress: bool,
) -> models.Params:
  """The dense start: one FFN a layer."""
  model = models.dense_form(config.make_model())
  init_key, train_seed = _streams(config.seed, 0)
  params = jax.jit(model.init)(init_key)
  if config.dense_steps == 0:
    return params
  loss = jax.tree_util.Partial(
    functools.partial(
      objectives.dense_loss,
      model=model,
      context=config.context,
      batch_size=config.batch_size,
    ),
    text,
  )
  return loop.train(
    [loss],
    params,
    optimiser=_optimiser(config, config.dense_steps),
    num_steps=config.dense_steps,
    seed=train_seed,
    tokens_per_step=config.batch_size * config.context,
    checkpoint_dir=path and path / "dense",
    progress=progress,
    name="dense start",
  )


def _train_experts(
  config: PretrainConfig,
  text: data.TaskText,
  dense_params: models.Params,
  path: Path | None,
  progress: bool,
) -> dict[str, Any]:
  """The merged form, every few steps the routed one."""
  model = config.make_model()
  init_key, train_seed = _streams(config.seed, 1)
  params = {
    "model": jax.jit(
      lambda key, dense: models.upcycle(
        key, model, dense, noise=config.upcycle_noise
      )
    )(init_key, dense_params),
    "table": objectives.first_table(
      config.table,
      config.seed,
      num_tasks=text.lengths.shape[0],
      num_experts=config.num_experts,
      concentration=config.anchor_concentration,
      mixing=config.learnt_mixing,
    ),
  }
  every = config.routed_every
  optimiser = _optimiser(config, config.num_steps)
  if config.experts_only:
    stay = optax.masked(optax.set_to_zero(), _is_no_expert)
    optimiser = optax.chain(optimiser, stay)
  return loop.train(
    _losses(config, model, text),
    params,
    optimiser=optimiser,
    num_steps=config.num_steps,
    seed=train_seed,
    choose=lambda step: int(every > 0 and step % every == every - 1),
    tokens_per_step=config.batch_size * config.context,
    checkpoint_dir=path and path / "experts",
    progress=progress,
    name="experts",
  )


def _losses(
  config: PretrainConfig, model: models.Model, text: data.TaskText
) -> list[loop.Loss]:
  settings = {
    name: jnp.float32(getattr(config, name))
    for name in ("weight_noise", "load_balance", "z_loss")
  }
  mixes = objectives.draw_mixes(
    config.seed,
    num_tasks=text.lengths.shape[0],
    concentration=config.mix_concentration,
    one_hot_fraction=config.one_hot_fraction,
  )
  settings["mixes"] = jnp.asarray(mixes)
  merged = functools.partial(
    objectives.merged_loss,
    model=model,
    context=config.context,
    batch_size=config.batch_size,
    num_mixes=config.mixes_per_step,
    is_learnt=config.table == "learnt",
  )
  routed = functools.partial(
    objectives.routed_loss,
    model=model,
    context=config.context,
    batch_size=config.batch_size,
  )
  return [
    jax.tree_util.Partial(merged, text, settings),
    jax.tree_util.Partial(routed, text, settings),
  ]


def _optimiser(
  config: PretrainConfig, num_steps: int
) -> optax.GradientTransformation:
  return loop.adamw(
    learning_rate=config.learning_rate,
    num_steps=num_steps,
    warmup_steps=min(config.warmup_steps, num_steps - 1),
    weight_decay=config.weight_decay,
    decays=_decays,
    clip_norm=config.clip_norm,
  )


def _is_no_expert(params: Any) -> Any:
  """A tree of booleans: what is no part of a layer's experts."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.DictKey("stack") not in path, params
  )


def _streams(seed: int, phase: int) -> tuple[jax.Array, int]:
  """A key for the first parameters of a phase, a seed for its steps."""
  root = np.random.SeedSequence([seed, phase]).generate_state(2)
  return jax.random.key(int(root[0] >> 1)), int(root[1] >> 1)


def _decays(params: Any) -> Any:
  """Matrices of the model; decay would pull the table to the uniform one."""
  marks = loop.is_matrix(params)
  return {**marks, "table": False} if "table" in params else marks
