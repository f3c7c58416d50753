"""Objectives of pre-training: losses of the dense, merged and routed forms.

Every loss is a module-level function whose arrays and text are bound with
`jax.tree_util.Partial`; it takes `({"model": params, "table": logits}, key)`.

Letters: V tasks, E experts, G mixes a step, B windows, S tokens of context.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import data, models, moe
from tanbr_jax.simplex.points import dirichlet_one

Params = dict[str, Any]


def far_anchors(
  seed: int, *, num_tasks: int, num_experts: int, concentration: float
) -> np.ndarray:
  """Draws points of the simplex that are far from each other.

  [R] reconstruction: from 512 draws of a symmetric Dirichlet, each next anchor
  is the draw whose nearest earlier anchor is farthest away.

  Args:
    seed: of the draws.
    num_tasks: V.
    num_experts: E.
    concentration: of the Dirichlet; smaller is closer to the vertices.

  Returns:
    [V, E] float32.
  """
  rng = np.random.default_rng(seed)
  draws = rng.dirichlet(np.full(num_experts, concentration), 512)
  chosen = [0]
  distances = np.linalg.norm(draws - draws[0], axis=1)
  while len(chosen) < num_tasks:
    chosen.append(int(distances.argmax()))
    to_last = np.linalg.norm(draws - draws[chosen[-1]], axis=1)
    distances = np.minimum(distances, to_last)
  return draws[chosen].astype(np.float32)


def first_table(
  kind: str,
  seed: int,
  *,
  num_tasks: int,
  num_experts: int,
  concentration: float,
  mixing: float,
) -> jax.Array:
  """Returns logits [V, E] whose softmax is the table that training starts from.

  Args:
    kind: "identity", "anchors" or "learnt", which starts from anchors too.
    seed: of the anchors.
    num_tasks: V.
    num_experts: E, V for the identity.
    concentration: of the anchors, see `far_anchors`.
    mixing: share of the uniform point in a learnt table's first rows.
  """
  if kind == "identity":
    # No weight at all: Adam would make whole steps of however small a share.
    alone = np.eye(num_tasks, dtype=bool)
    return jnp.where(alone, jnp.float32(0), jnp.float32(-jnp.inf))
  weights = far_anchors(
    seed,
    num_tasks=num_tasks,
    num_experts=num_experts,
    concentration=concentration,
  )
  if kind == "learnt":
    weights += mixing * (1 / num_experts - weights)
  return jnp.log(jnp.asarray(weights) + 1e-9)


def draw_mixes(
  seed: int,
  *,
  num_tasks: int,
  concentration: float,
  one_hot_fraction: float,
  count: int = 4096,
) -> np.ndarray:
  """Draws the task mixes that training chooses from.

  They are drawn beforehand because XLA takes seconds to compile a gamma draw.

  Args:
    seed: of the draws.
    num_tasks: V.
    concentration: of a symmetric Dirichlet.
    one_hot_fraction: share of mixes that are one task alone instead.
    count: number of mixes.

  Returns:
    [count, V] float32 on the simplex.
  """
  rng = np.random.default_rng(seed)
  mixes = rng.dirichlet(np.full(num_tasks, concentration), count)
  alone = np.eye(num_tasks)[rng.integers(0, num_tasks, count)]
  is_alone = rng.uniform(size=count) < one_hot_fraction
  mixes = np.where(is_alone[:, None], alone, mixes)
  return mixes.astype(np.float32)


def table_weights(logits: jax.Array, *, is_learnt: bool) -> jax.Array:
  """Returns [V, E]: the rows' softmax, without a gradient if not learnt."""
  weights = jax.nn.softmax(logits, axis=-1)
  return weights if is_learnt else jax.lax.stop_gradient(weights)


def merged_loss(
  text: data.TaskText,
  settings: dict[str, jax.Array],
  params: Params,
  key: jax.Array,
  *,
  model: models.Model,
  context: int,
  batch_size: int,
  num_mixes: int,
  is_learnt: bool,
  distinct: bool = False,
) -> jax.Array:
  """Mean loss of merged models, each on text of the mix that it is for.

  Args:
    text: of V tasks.
    settings: "mixes" [M, V] to choose from, and the scalar "weight_noise",
      the share of x that is a uniform point of the simplex.
    params: of the model with experts, and the table's logits [V, E].
    key: random key, consumed.
    model: the model with experts.
    context: S.
    batch_size: B, over all mixes.
    num_mixes: G; each has B / G windows and merge weights of its own.
    is_learnt: whether the table is trained.
    distinct: whether no mix is drawn twice in a step; G is at most M then.

  Returns:
    [] float32, nats a token.
  """
  mix_key, task_key, window_key, noise_key = jax.random.split(key, 4)
  num_experts = params["table"].shape[1]
  # A mix for each merged model, and the weights that the table gives it.
  mixes = jax.random.choice(
    mix_key, settings["mixes"], (num_mixes,), replace=not distinct
  )
  weights = mixes @ table_weights(params["table"], is_learnt=is_learnt)
  # Noise trains the surroundings of these weights too.
  random = dirichlet_one(noise_key, (num_mixes, num_experts))
  weights += settings["weight_noise"] * (random - weights)
  # Each mix draws its own windows of text.
  tasks = jax.random.categorical(
    task_key,
    jnp.log(mixes)[:, None],
    shape=(num_mixes, batch_size // num_mixes),
  )
  windows = data.sample_task_windows(
    window_key, text, tasks.reshape(-1), context + 1
  )

  # Each merged model is scored on the windows of its mix.
  def loss(weights: jax.Array, windows: jax.Array) -> jax.Array:
    dense, dense_params = models.merge(model, params["model"], weights)
    return jnp.mean(models.score(dense, dense_params, windows).loss)

  windows = windows.reshape(num_mixes, -1, windows.shape[-1])
  return jnp.mean(jax.vmap(loss)(weights, windows))


def routed_loss(
  text: data.TaskText,
  settings: dict[str, jax.Array],
  params: Params,
  key: jax.Array,
  *,
  model: models.Model,
  context: int,
  batch_size: int,
  has_task_experts: bool = False,
) -> jax.Array:
  """Loss of the routed model on all tasks alike, router losses included.

  Args:
    text: of V tasks.
    settings: scalars "load_balance" and "z_loss", the weights of those losses;
      "task_loss" too where tasks have experts of their own: the weight of the
      routers' cross-entropy with the expert of the token's task.
    params: of the model with experts, and the table, which has no part here.
    key: random key, consumed.
    model: the model with experts.
    context: S.
    batch_size: B.
    has_task_experts: whether expert v is that of task v.

  Returns:
    [] float32, nats a token.
  """
  tasks, windows = _uniform_windows(key, text, batch_size, context)
  observe = Partial(moe.observe_losses, ())
  if has_task_experts:
    # Each layer sees the tasks of its tokens, [L, N].
    layers = len(model.config.moe_layers)
    token_tasks = jnp.tile(jnp.repeat(tasks, context), (layers, 1))
    observe = Partial(_observe_router, token_tasks)
  logits, losses = model.apply(
    params["model"], windows[:, :-1].astype(jnp.int32), observe=observe
  )
  loss = models.score_logits(logits, windows[:, 1:].astype(jnp.int32)).loss
  total = jnp.mean(loss)
  if has_task_experts:
    losses, task_losses = losses
    total += settings["task_loss"] * jnp.mean(task_losses)
  total += settings["load_balance"] * jnp.mean(losses.load_balance)
  return total + settings["z_loss"] * jnp.mean(losses.z)


def _observe_router(
  tasks: jax.Array, given: moe.MoeInput, made: moe.MoeOutput
) -> tuple[moe.RouterLosses, jax.Array]:
  """The router's losses, and its cross-entropy with the tasks [N]."""
  log_p = jax.nn.log_softmax(given.router_logits, axis=-1)
  own = jnp.take_along_axis(log_p, tasks[:, None], axis=-1, mode="clip")
  return moe.observe_losses((), given, made), -jnp.mean(own)


def dense_loss(
  text: data.TaskText,
  params: Params,
  key: jax.Array,
  *,
  model: models.Model,
  context: int,
  batch_size: int,
) -> jax.Array:
  """Loss of a dense model on all tasks alike.

  Args:
    text: of V tasks.
    params: the dense model's.
    key: random key, consumed.
    model: the dense model.
    context: S.
    batch_size: B.
  """
  windows = uniform_windows(key, text, batch_size, context)
  return jnp.mean(models.score(model, params, windows).loss)


def uniform_windows(
  key: jax.Array, text: data.TaskText, batch_size: int, context: int
) -> jax.Array:
  """Draws windows [B, S + 1] of all tasks alike."""
  return _uniform_windows(key, text, batch_size, context)[1]


def _uniform_windows(
  key: jax.Array, text: data.TaskText, batch_size: int, context: int
) -> tuple[jax.Array, jax.Array]:
  """The same with their tasks [B] before them."""
  task_key, window_key = jax.random.split(key)
  num_tasks = text.lengths.shape[0]
  tasks = jax.random.randint(task_key, (batch_size,), 0, num_tasks, jnp.int32)
  return tasks, data.sample_task_windows(window_key, text, tasks, context + 1)
