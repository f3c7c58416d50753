"""Where merge weights and calibration tokens come from, read and checked.

Letters: L layers with experts, E experts, S tokens of a sequence.
"""

import os
from pathlib import Path

import numpy as np

from experiments.common import launch
from tanbr_jax import models
from tanbr_jax.online import trace
from tanbr_jax.report import workdir as reporting
from tanbr_jax.simplex import points


def given_weights(
  text: str, *, num_experts: int, num_layers: int
) -> np.ndarray:
  """Reads merge weights: a comma list, or a .npy file of [E] or [L, E].

  Args:
    text: "0.25,0.75", or the name of a file.
    num_experts: E.
    num_layers: L.

  Returns:
    Float32 weights on the simplex.

  Raises:
    ValueError: if they are anything else.
  """
  if text.endswith(".npy"):
    weights = _read_array(text)
  else:
    try:
      weights = np.array([float(word) for word in text.split(",")])
    except ValueError:
      raise ValueError(
        f"weights must be a comma list of numbers, got weights={text!r}"
      ) from None
  shapes = (num_experts,), (num_layers, num_experts)
  if weights.shape not in shapes or weights.dtype.kind != "f":
    raise ValueError(
      "weights must be one number for each expert, [E] or [L, E], got "
      f"{weights.dtype}{list(weights.shape)} for E={num_experts}, "
      f"L={num_layers}"
    )
  # As typed: thirds do not sum to one exactly.
  weights = weights.astype(np.float64)
  total = weights.sum(axis=-1, keepdims=True)
  if np.all(np.abs(total - 1) < 1e-3):
    weights = weights / total
  return np.asarray(points.check_simplex("weights", weights.astype(np.float32)))


def played_weights(
  workdir: str, method: str, *, num_experts: int
) -> tuple[np.ndarray, str]:
  """The weights that a method of a finished online run played last.

  Args:
    workdir: the run's folder.
    method: one of its methods; "" if there is one only.
    num_experts: E.

  Returns:
    [E] float32, the mean over the last quarter of the rounds and over seeds,
    and the method's name.

  Raises:
    ValueError: if there is no trace in the folder, the method is not in it, or
      it played other experts.
  """
  path = Path(workdir) / reporting.TRACE
  try:
    found = trace.load(path)
  except FileNotFoundError:
    raise ValueError(
      f"there is no {str(path)!r}: state must be the folder of a finished run"
    ) from None
  # What it is said to have played is ignored: it serves all experts.
  found.pop("routed", None)
  if not method and len(found) == 1:
    method = next(iter(found))
  if method not in found:
    hint = launch.suggest(method, found)
    raise ValueError(f"method must be one of the run's, got {method!r}{hint}")
  played = found[method].merge_weights
  if played.shape[-1] != num_experts:
    raise ValueError(
      f"{method} of {str(path)!r} played {played.shape[-1]} experts, the "
      f"checkpoint has {num_experts}"
    )
  quarter = max(1, played.shape[1] // 4)
  mean = played[:, -quarter:].astype(np.float64).mean(axis=(0, 1))
  return (mean / mean.sum()).astype(np.float32), method


def read_ids(
  path: str,
  checkpoint: str | os.PathLike[str],
  *,
  vocab_size: int,
  length: int,
  num_sequences: int,
) -> np.ndarray:
  """Reads calibration tokens and cuts sequences out of them, evenly spaced.

  Args:
    path: a .npy file of token ids, one after the other or already [n, S]; or a
      file of text, or a folder of such files, read in the order of their names.
    checkpoint: whose tokenizer text is read with.
    vocab_size: ids are smaller.
    length: S; less if there is less text.
    num_sequences: how many at most.

  Returns:
    [n, S] int32.

  Raises:
    ValueError: if there are fewer than two tokens, an id is out of range, or
      the text or the tokenizer cannot be read.
  """
  if path.endswith(".npy"):
    ids = _read_array(path)
    if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2):
      raise ValueError(
        f"{path!r} must hold integers [N] or [n, S], got "
        f"{ids.dtype}{list(ids.shape)}"
      )
  else:
    tokenizer = models.read_tokenizer(checkpoint)
    texts = _read_texts(Path(path))
    parts = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
    ids = np.concatenate([np.asarray(part, np.int64) for part in parts])
  if ids.size < 2:
    raise ValueError(f"{path!r} must hold two tokens or more, got {ids.size}")
  if ids.min() < 0 or ids.max() >= vocab_size:
    raise ValueError(
      f"tokens of {path!r} must be in [0, {vocab_size}), got "
      f"{ids.min()} to {ids.max()}"
    )
  ids = ids.astype(np.int32)
  if ids.ndim == 2:
    return ids[:num_sequences, :length]
  length = min(length, ids.size)
  count = min(num_sequences, ids.size // length)
  starts = np.linspace(0, ids.size - length, count).astype(np.int64)
  return ids[starts[:, None] + np.arange(length)]


def _read_array(path: str) -> np.ndarray:
  try:
    return np.load(path, allow_pickle=False)
  # Damaged bytes make NumPy raise nearly anything.
  except Exception as error:
    reason = " ".join(f"{error!s} {type(error).__name__}".split())
    raise ValueError(f"{path!r} cannot be read ({reason})") from None


def _read_texts(path: Path) -> list[str]:
  files = [path]
  if path.is_dir():
    files = sorted(p for p in path.rglob("*") if _is_text(p, path))
  if not files:
    raise ValueError(f"there is no file of text in {str(path)!r}")
  return [_read_text(file) for file in files]


def _is_text(file: Path, folder: Path) -> bool:
  parts = file.relative_to(folder).parts
  return file.is_file() and not any(part.startswith(".") for part in parts)


def _read_text(path: Path) -> str:
  try:
    return path.read_text("utf-8")
  except (OSError, UnicodeDecodeError) as error:
    reason = " ".join(str(error).split())
    raise ValueError(f"{str(path)!r} cannot be read ({reason})") from None
