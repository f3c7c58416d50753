"""A training loop: optax steps, orbax checkpoints, exact resume.

A step's random key depends on nothing but the seed and the number of the step,
so a run that was killed continues from its last whole checkpoint and ends with
the same bits.
"""

import contextlib
import errno
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import tqdm
from absl import logging

from tanbr_jax.storage import atomic
from tanbr_jax.storage.numerics import differences, numerics

Params = Any
# Beside the loss [], a dict of figures [] for the bar, if there are any.
Loss = Callable[
  [Params, jax.Array], jax.Array | tuple[jax.Array, dict[str, jax.Array]]
]


class TrainState(NamedTuple):
  """The contents of a checkpoint.

  Attributes:
    params: pytree of the trained arrays.
    optimiser_state: the optimiser's.
  """

  params: Params
  optimiser_state: optax.OptState


def is_matrix(params: Params) -> Any:
  """Marks the arrays of two or more axes, which weight decay is for."""
  return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def adamw(
  *,
  learning_rate: float,
  num_steps: int,
  warmup_steps: int = 0,
  weight_decay: float = 0.0,
  decays: Callable[[Params], Any] = is_matrix,
  clip_norm: float = 1.0,
) -> optax.GradientTransformation:
  """AdamW with clipped gradients, linear warm-up and a cosine to one tenth.

  Args:
    learning_rate: the highest rate, after the warm-up.
    num_steps: length of the whole schedule.
    warmup_steps: steps from zero to the highest rate, fewer than `num_steps`.
    weight_decay: of the arrays that `decays` marks.
    decays: params -> the same tree of booleans.
    clip_norm: the gradient's largest norm over all parameters.

  Raises:
    ValueError: if the warm-up is not shorter than the schedule.
  """
  if not 0 <= warmup_steps < num_steps:
    raise ValueError(
      "warmup_steps must be in [0, num_steps), got "
      f"warmup_steps={warmup_steps}, num_steps={num_steps}"
    )
  # Linear to the highest rate, then a cosine to a tenth of it.
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0 if warmup_steps else learning_rate,
    peak_value=learning_rate,
    warmup_steps=warmup_steps,
    decay_steps=num_steps,
    end_value=0.1 * learning_rate,
  )
  # Clipped gradients, then Adam with decoupled decay.
  return optax.chain(
    optax.clip_by_global_norm(clip_norm),
    optax.adamw(
      schedule,
      b2=0.98,
      weight_decay=weight_decay,
      mask=decays,
    ),
  )


def train(
  losses: Sequence[Loss],
  params: Params,
  *,
  optimiser: optax.GradientTransformation,
  num_steps: int,
  seed: int,
  choose: Callable[[int], int] = lambda step: 0,
  tokens_per_step: int = 0,
  checkpoint_dir: str | os.PathLike[str] | None = None,
  checkpoint_every: int = 200,
  check_every: int = 10,
  progress: bool = True,
  name: str = "training",
) -> Params:
  """Takes `num_steps` steps, resuming from the last checkpoint if there is one.

  Args:
    losses: functions of (params, key) -> [] float32, or a pair of it and a dict
      of further figures [] for the bar. Text and other big arrays are bound by
      `jax.tree_util.Partial`, so that jit takes them as arguments.
    params: where training starts.
    optimiser: an optax transformation.
    num_steps: steps in all, counted from the very first start.
    seed: fixes every step's key.
    choose: step -> the index of that step's loss.
    tokens_per_step: text that a step reads, for the progress bar.
    checkpoint_dir: folder of this training's checkpoints; None saves nothing.
      The state after the last step is always saved.
    checkpoint_every: steps between checkpoints.
    check_every: steps between two looks at the loss.
    progress: whether a bar with loss, figures and tokens/s is drawn on stderr.
    name: the bar's title, and what an error names.

  Returns:
    The trained parameters.

  Raises:
    ValueError: the loss is not finite; names the step and the value. Or the
      checkpoints are of a training with another seed or name, or under other
      settings of JAX that decide the bits.
    OSError: a checkpoint cannot be written; names its folder.
  """
  # The first state, or the last one that was saved.
  # A copy, as each step's state takes the place of the one before.
  params = jax.tree.map(jnp.copy, params)
  state = TrainState(params, jax.jit(_promoting(optimiser.init))(params))
  update = _make_update(optimiser)
  about = {"name": name, "seed": seed, "numerics": numerics()}
  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(_Checkpoints(checkpoint_dir, about))
    start, state = checkpoints.restore(state)
    bar = stack.enter_context(
      tqdm.tqdm(total=num_steps, initial=start, desc=name, disable=not progress)
    )
    pending: list[tuple[jax.Array, dict[str, jax.Array]]] = []
    for step in range(start, num_steps):
      # One step; its loss is looked at later, so that the device never waits.
      key = jax.random.fold_in(jax.random.key(seed), step)
      state, found = update(losses[choose(step)], state, key)
      pending.append(found)
      # Every few steps: the loss is finite, the bar moves, the state is saved.
      is_last = step + 1 == num_steps
      is_saved = is_last or (step + 1) % checkpoint_every == 0
      if is_saved or (step + 1) % check_every == 0:
        means = _check(pending, step, name)
        bar.update(len(pending))
        bar.set_postfix_str(_postfix(bar, means, tokens_per_step))
        pending = []
      if is_saved:
        checkpoints.save(step + 1, state)
  return state.params


def save(path: str | os.PathLike[str], params: Params) -> str:
  """Writes a tree of arrays to a folder, which is whole or absent.

  Returns:
    A checksum for `load`.

  Raises:
    OSError: the folder cannot be written; names it.
  """
  with _writing(path), ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(Path(path).absolute(), params, force=True)
  return atomic.digest_files(path)


def load(
  path: str | os.PathLike[str], like: Params, *, checksum: str | None = None
) -> Params:
  """Reads what `save` wrote, onto the default device.

  Args:
    path: the folder.
    like: tree of arrays or `jax.ShapeDtypeStruct` of the same structure.
    checksum: what `save` returned; None does not compare.

  Raises:
    ValueError: the folder is absent, was damaged or holds another structure.
  """
  if checksum not in (None, atomic.digest_files(path)):
    raise ValueError(f"{path} cannot be read (its checksum differs)")
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      return checkpointer.restore(Path(path).absolute(), _on_device(like))
  # Damaged files make Orbax and TensorStore raise nearly anything.
  except Exception as error:
    raise ValueError(f"{path} cannot be read ({_in_short(error)})") from None


@contextlib.contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[None]:
  """Turns what Orbax raises, on a full disk say, into an OSError."""
  try:
    with atomic.naming(path):
      yield
  except OSError:
    raise
  except Exception as error:
    raise OSError(errno.EIO, _in_short(error), str(path)) from error


def _in_short(error: Exception) -> str:
  """One line of what Orbax said, whose messages have many."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]


def _on_device(like: Params) -> Params:
  """Shapes with a sharding, so that files of another device can be read."""
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    like,
  )


def _promoting(function: Callable[..., Any]) -> Callable[..., Any]:
  """Optax multiplies counts with floats, JAX's attention bfloat16 with float32.

  Strict promotion, where a caller has asked for it, would refuse both.
  """

  def wrapped(*args: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):
      return function(*args)

  return wrapped


# Trainings that share an optimiser share what is compiled.
@functools.lru_cache(maxsize=8)
def _make_update(optimiser: optax.GradientTransformation) -> Callable[..., Any]:
  def update(
    loss: Loss, state: TrainState, key: jax.Array
  ) -> tuple[TrainState, tuple[jax.Array, dict[str, jax.Array]]]:
    def with_figures(params: Params) -> tuple[jax.Array, Any]:
      found = loss(params, key)
      return found if isinstance(found, tuple) else (found, {})

    found, grads = jax.value_and_grad(with_figures, has_aux=True)(state.params)
    updates, optimiser_state = optimiser.update(
      grads, state.optimiser_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, optimiser_state), found

  return jax.jit(_promoting(update), donate_argnums=1)


def _check(
  pending: Sequence[tuple[jax.Array, dict[str, jax.Array]]],
  step: int,
  name: str,
) -> dict[str, float]:
  """Means of the losses that end at `step`, all finite, and of the figures."""
  found = jax.device_get(list(pending))
  values = np.array([loss for loss, _ in found])
  wrong = np.flatnonzero(~np.isfinite(values))
  if wrong.size:
    first = step + 1 - len(values) + int(wrong[0])
    raise ValueError(
      f"{name}: loss must be finite, got {values[wrong[0]]} at step {first}"
    )
  # Losses that take turns need not have the same figures.
  means = {"loss": float(values.mean())}
  for key in dict.fromkeys(key for _, one in found for key in one):
    means[key] = float(np.mean([one[key] for _, one in found if key in one]))
  return means


def _postfix(
  bar: tqdm.tqdm, means: Mapping[str, float], tokens_per_step: int
) -> str:
  rate = (bar.format_dict["rate"] or 0.0) * tokens_per_step
  texts = [f"{name} {value:.3f}" for name, value in means.items()]
  return ", ".join([*texts, f"{rate:,.0f} tokens/s"])


def _structure(state: TrainState) -> dict[str, str]:
  """Names, shapes and types of a state's arrays, in short."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  text = [
    f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}"
    for path, leaf in leaves
  ]
  found = hashlib.sha256("\n".join(text).encode()).hexdigest()
  return {"structure": found[:16]}


class _Checkpoints:
  """Orbax checkpoints of a `TrainState`, or nothing at all without a folder."""

  def __init__(
    self, path: str | os.PathLike[str] | None, about: Mapping[str, Any]
  ) -> None:
    self._manager, self._about = None, about
    if path is not None:
      self._path = Path(path).absolute()
      options = ocp.CheckpointManagerOptions(
        max_to_keep=2, enable_async_checkpointing=False
      )
      with _writing(path):
        self._manager = ocp.CheckpointManager(self._path, options=options)

  def __enter__(self) -> "_Checkpoints":
    return self

  def __exit__(self, *unused: object) -> None:
    if self._manager is not None:
      self._manager.close()

  def restore(self, like: TrainState) -> tuple[int, TrainState]:
    """The last step whose checkpoint is whole, and the state after it."""
    if self._manager is None:
      return 0, like
    about = self._about | _structure(like)
    for step in sorted(self._manager.all_steps(), reverse=True):
      # Orbax meets no damaged file: it tells of them in many lines.
      folder = self._path / str(step)
      try:
        found = atomic.read_json(_about_path(folder), strict=True)
        is_whole = found["files"] == atomic.digest_files(folder)
      except (OSError, ValueError):
        is_whole = False
      if not is_whole:
        text = "%s is damaged: the training goes on without it"
        logging.warning(text, folder)
        shutil.rmtree(folder, ignore_errors=True)
        self._manager.reload()
        continue
      if differing := differences(found, about):
        raise ValueError(f"{self._path} holds another training: {differing}")
      args = ocp.args.StandardRestore(_on_device(like))
      return step, self._manager.restore(step, args=args)
    return 0, like

  def save(self, step: int, state: TrainState) -> None:
    if self._manager is None:
      return
    with _writing(self._path):
      self._manager.save(step, args=ocp.args.StandardSave(state))
    folder = self._path / str(step)
    about = self._about | _structure(state)
    files = {"files": atomic.digest_files(folder)}
    atomic.write_json(_about_path(folder), about | files)
    # The manager removes old folders, not what is said of them.
    for path in self._path.glob(_about_path(Path("*")).name):
      if not path.with_suffix("").exists():
        path.unlink(missing_ok=True)


def _about_path(folder: Path) -> Path:
  """Where a checkpoint's checksum and what it belongs to are kept."""
  return folder.with_suffix(".json")
