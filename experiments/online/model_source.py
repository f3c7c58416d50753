"""Where the main job's model comes from: trained on bytes, or a checkpoint."""

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from experiments.common import launch
from tanbr_jax import data, models
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count
from tanbr_jax.models.base import DTYPES
from tanbr_jax.models.huggingface import fine_tunes, reading
from tanbr_jax.training import pretraining
from tanbr_jax.training.pretraining import PretrainConfig

# Parts of the validation text: to search on, to select on, and for both again
# in the estimate of the oracle's error.
VALIDATION_PARTS = 4


class Made(NamedTuple):
  """A model and what came with it.

  Attributes:
    model: with experts.
    params: its parameters.
    task_weights: [V, E] weights that may suit each task, None if none are
      known.
    figures: flat numbers on how it was made.
  """

  model: models.Model
  params: models.Params
  task_weights: jax.Array | None
  figures: dict[str, float]


class ModelSource(Protocol):
  """A model that is not there yet, of which all is known that can be wrong.

  Attributes:
    num_experts: E.
    context: S, the tokens of a window that are read.
    has_router: whether it can be served routed, and tells its usage.
  """

  num_experts: int
  context: int
  has_router: bool

  def read_text(self, path: str | None, cache_dir: Path) -> data.Corpus:
    """Reads the tasks; a ValueError of one line if they do not fit."""

  def check_tasks(self, num_tasks: int) -> None:
    """Raises a ValueError if the model cannot be made for V tasks."""

  def make(
    self, corpus: data.Corpus, *, cache_dir: Path, progress: bool
  ) -> Made:
    """Trains or reads the model."""


@dataclasses.dataclass(frozen=True)
class OfBytes:
  """A `ModelSource`: a model of bytes, trained once and then cached."""

  config: PretrainConfig
  has_router: bool = True

  @property
  def num_experts(self) -> int:
    """E."""
    return self.config.num_experts

  @property
  def context(self) -> int:
    """S."""
    return self.config.context

  def read_text(self, path: str | None, cache_dir: Path) -> data.Corpus:
    """A folder of text, or the built-in domains."""
    return data.load_corpus(path, cache_dir, context=self.context)

  def check_tasks(self, num_tasks: int) -> None:
    """Refuses a table of training that does not fit V tasks."""
    self.config.check_tasks(num_tasks)

  def make(
    self, corpus: data.Corpus, *, cache_dir: Path, progress: bool
  ) -> Made:
    """Pre-trains on the corpus's "train" split, or reads the cache."""
    trained = pretraining.pretrain(
      self.config, corpus, cache_dir=cache_dir, progress=progress
    )
    figures = {}
    if trained.seconds is not None:
      figures["pretrain_seconds"] = trained.seconds
    return Made(trained.model, trained.params, trained.task_weights, figures)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings(ranges.Checked):
  """A model that is read; see configs/online/quick.py.

  Attributes:
    path: a checkpoint's folder, of a model with experts or of the base that
      fine-tunes share.
    finetunes: folders of fine-tunes or of adapters, a comma list; may be empty.
    dtype: of parameters and computation; empty for the checkpoint's.
    context: tokens of a window that are read.
    tasks: of the built-in domains, a comma list; empty for all.
    scanned: whether the layers, all alike, are compiled as one loop.
    held_out: whether a folder of text is what the model was trained on: its
      "train" split is not served then.
  """

  path: str
  finetunes: str
  dtype: str
  context: Count
  tasks: str = ""
  scanned: bool = False
  held_out: bool = False

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    if self.dtype and self.dtype not in DTYPES:
      raise ValueError(f"dtype must be one of {DTYPES}, got {self.dtype!r}")
    if self.folders and not self.path:
      raise ValueError(
        "finetunes need their base as model.path, got model.path='' with "
        f"model.finetunes={self.finetunes!r}"
      )
    if len(self.folders) == 1:
      raise ValueError(
        f"finetunes must be at least 2 folders, got {self.finetunes!r}"
      )

  @property
  def folders(self) -> list[Path]:
    """The folders of the fine-tunes."""
    names = (name.strip() for name in self.finetunes.split(","))
    return [Path(name).expanduser() for name in names if name]


@dataclasses.dataclass(frozen=True)
class OfCheckpoint:
  """A `ModelSource`: a checkpoint with experts, or fine-tunes of a dense one.

  Attributes:
    settings: which.
    num_experts: E.
    vocab_size: of the model.
    tokenizer: of the folder.
    trains: whether text is needed to train on, too.
    merges_copies: whether first layers whose experts are copies, as those of a
      model that was upcycled in its last layers, are served as one FFN; what
      counts pairs, bytes or layers wants them as they are.
  """

  settings: ModelSettings
  num_experts: int
  vocab_size: int
  tokenizer: Any = dataclasses.field(repr=False)
  trains: bool = False
  merges_copies: bool = False

  @property
  def has_router(self) -> bool:
    """Fine-tunes have none."""
    return not self.settings.folders

  @property
  def context(self) -> int:
    """S."""
    return self.settings.context

  def read_text(self, path: str | None, cache_dir: Path) -> data.Corpus:
    """The tokens of a folder of tasks, or of the built-in domains.

    Of the domains, and of a folder that is held out or trained on, the splits
    are those that `experiments.upcycle` trains, chooses and scores on: "train"
    is not served. Such a folder's tasks must be folders of text.
    """
    given = {
      "vocab_size": self.vocab_size,
      "context": self.context,
      "min_windows": {"validation": VALIDATION_PARTS, "test": 1},
      "cache_dir": cache_dir,
    }
    held_out = self.settings.held_out or self.trains
    if path is not None and not held_out:
      return data.load_tokens(path, self.tokenizer, **given)
    corpus = data.load_corpus(path, cache_dir, context=self.context)
    if self.settings.tasks:
      names = launch.names(
        self.settings.tasks, known=corpus.task_names, kind="task"
      )
      corpus = data.select_tasks(corpus, names)
    return data.tokenise_corpus(corpus, self.tokenizer, **given)

  def check_tasks(self, num_tasks: int) -> None:
    """Any number will do."""

  def make(
    self, corpus: data.Corpus, *, cache_dir: Path, progress: bool
  ) -> Made:
    """Reads the model."""
    del corpus, cache_dir, progress
    start = time.perf_counter()
    path = Path(self.settings.path).expanduser()
    dtype = self.settings.dtype or None
    if self.settings.folders:
      found = models.from_finetunes(path, self.settings.folders, dtype=dtype)
    else:
      found = models.from_pretrained(path, dtype=dtype)
      if self.merges_copies:
        found = models.merge_copies(*found)
      if self.settings.scanned:
        found = (models.scanned(found[0]), found[1])
    jax.block_until_ready(found[1])
    return Made(*found, None, {"read_seconds": time.perf_counter() - start})


def open_checkpoint(settings: ModelSettings) -> OfCheckpoint:
  """Reads config, headers and tokenizer, no tensor.

  Raises:
    ValueError: one line on what is missing, damaged, not understood or does
      not fit.
  """
  path = Path(settings.path).expanduser()
  dtype = settings.dtype or None
  if settings.folders:
    config = fine_tunes.check(path, settings.folders, dtype=dtype).config
    num_experts = len(settings.folders)
  else:
    config = reading.check(path, dtype=dtype).model.config
    num_experts = config.num_experts
    if num_experts is None:
      raise ValueError(
        "model.path must be of a model with experts, or model.finetunes name "
        f"fine-tunes of it, got a dense model in {str(path)!r}"
      )
  if config.context is not None and settings.context > config.context:
    raise ValueError(
      f"model.context must be at most the model's, got "
      f"model.context={settings.context} for {config.context} in {str(path)!r}"
    )
  tokenizer = models.read_tokenizer(path)
  return OfCheckpoint(settings, num_experts, config.vocab_size, tokenizer)
