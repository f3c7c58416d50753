"""The settings of a pre-training, checked when they are made."""

import dataclasses

from tanbr_jax import models
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import (
  Count,
  NonNegative,
  Positive,
  Share,
  Whole,
)

TABLES = ("anchors", "identity", "learnt")
MODELS = ("byte_lm", "decoder")


@dataclasses.dataclass(frozen=True)
class PretrainConfig(ranges.Checked):
  """Everything that decides a pre-training; flat, so that it can be swept.

  Attributes:
    model: "byte_lm", or "decoder" for a gated SiLU `Decoder` over bytes.
    num_layers: of the model, like the next eight; see `ByteLMConfig`.
    seed: of initialisation, batches and mixes.
    num_steps: steps with experts.
    dense_steps: steps of one dense model before them.
    batch_size: B, windows a step.
    mixes_per_step: mixes a step, each with its share of the windows.
    learning_rate: highest rate; see `loop.adamw` for the next three.
    table: "anchors" (fixed and far apart), "learnt" (from those anchors on)
      or "identity" (expert v for task v; V = E).
    anchor_concentration: of the Dirichlet that anchors are drawn from.
    learnt_mixing: share of the uniform point in a learnt table's first rows.
    weight_noise: share of x that is a random point of the simplex.
    mix_concentration: of the Dirichlet that psi is drawn from.
    one_hot_fraction: share of mixes that are one task alone.
    routed_every: every such step is a routed one; 0 for none.
    load_balance: weight of the load-balance loss.
    z_loss: weight of the router's z loss.
    upcycle_noise: of the experts' copies, relative.
    experts_only: whether all but the experts stays as the dense start left it.
      With an identity table, mixes of one task and no routed step, the experts
      are then fine-tunes of one dense model, one for each task.
  """

  model: str = "byte_lm"
  num_layers: Count = 3
  model_dim: Count = 128
  num_heads: Count = 2
  head_dim: Count = 32
  expert_dim: Count = 512
  num_experts: Count = 8
  num_selected: Count = 2
  context: Count = 64
  dtype: str = "float32"
  seed: Whole = 0
  num_steps: Count = 600
  dense_steps: Whole = 80
  batch_size: Count = 64
  mixes_per_step: Count = 4
  learning_rate: Positive = 6e-3
  warmup_steps: Whole = 40
  weight_decay: NonNegative = 0.01
  clip_norm: Positive = 1.0
  table: str = "anchors"
  anchor_concentration: Positive = 0.5
  learnt_mixing: Share = 0.3
  weight_noise: Share = 0.0
  mix_concentration: Positive = 0.3
  one_hot_fraction: Share = 0.9
  routed_every: Whole = 5
  load_balance: NonNegative = 0.01
  z_loss: NonNegative = 1e-4
  upcycle_noise: NonNegative = 0.0
  experts_only: bool = False

  def __post_init__(self) -> None:
    """Refuses what cannot be trained.

    Raises:
      ValueError: a size, a share or a name is out of range.
    """
    super().__post_init__()
    for name, known in (("model", MODELS), ("table", TABLES)):
      check_choice(name, getattr(self, name), known)
    self.make_model()
    if self.batch_size % self.mixes_per_step:
      raise ValueError(
        "batch_size must be a multiple of mixes_per_step, got batch_size="
        f"{self.batch_size}, mixes_per_step={self.mixes_per_step}"
      )

  def check_tasks(self, num_tasks: int) -> None:
    """Raises a ValueError if the table does not fit V tasks."""
    if self.table == "identity" and num_tasks != self.num_experts:
      raise ValueError(
        "table='identity' needs as many experts as tasks, got "
        f"num_experts={self.num_experts}, num_tasks={num_tasks}"
      )

  def make_model(self) -> models.Model:
    """The model with experts, without parameters."""
    names = [field.name for field in dataclasses.fields(models.ByteLMConfig)]
    sizes = {name: getattr(self, name) for name in names}
    if self.model == "byte_lm":
      return models.ByteLM(models.ByteLMConfig(**sizes))
    return models.Decoder(
      models.DecoderConfig(
        **sizes,
        num_kv_heads=self.num_heads,
        vocab_size=models.ByteLMConfig.vocab_size,
      )
    )
