"""The config of a fine-tuning to fewer experts, see `sparse_tuning`."""

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
from tanbr_jax.masking import mask_router

METHODS = ("none", "smaller_k", "beam", "null_experts", "top_any")
TRAINED = ("everything", "added")
PENALTIES = ("l1", "l2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningConfig(ranges.Checked):
  """Everything that decides a fine-tuning; flat, so that it can be swept.

  Attributes:
    method: one of `METHODS`.
    trains: "everything", or "added": what the method adds alone.
    seed: of batches and of what is drawn.
    num_steps: optimiser's steps of gradients of one batch each.
    batch_size: B.
    accumulate: batches whose mean gradient is one step of the optimiser's.
    learning_rate: highest rate of the model's parameters.
    added_learning_rate: highest rate of the added ones.
    warmup_share: share of the steps in which the rates rise linearly; then they
      fall linearly to zero.
    clip_norm: largest norm of the model's and of the added gradient.
    alpha: weight of the load balance.
    beta: weight of the penalty; where there is a budget, the first one.
    budget: mean number of active experts that beta is moved for, in (0, K];
      None for a constant beta.
    budget_rate: how much of the excess, in parts of K, a step adds to beta.
    budget_gain: how much of it is added to the step's weight alone.
    penalty: of "beam": the mean mask, or "l2" its mean square.
    form: of "beam": see `masking.beam_in_training`.
    last_temperature: of soft masks, which begin at 1 and get harder; 1 for not.
    is_strict: of "beam": whether a mask of exactly one half is off.
    num_selected: k of "smaller_k"; None for K.
    num_null: M of "null_experts".
    counts_null: of "null_experts": see `masking.null_experts`.
    num_slots: of "top_any".
    distils: whether L_lm is the divergence from the model as it was.
    added_share: share of the steps, at the start, that train what is added
      alone (ZEDA's first stage).
  """

  method: str = "beam"
  trains: str = "everything"
  seed: Whole = 0
  num_steps: Count = 300
  batch_size: Count = 32
  accumulate: Count = 1
  learning_rate: Positive = 5e-5
  added_learning_rate: Positive = 1e-3
  warmup_share: Share = 0.03
  clip_norm: Positive = 1.0
  alpha: NonNegative = 1e-3
  beta: NonNegative = 0.1
  budget: Positive | None = None
  budget_rate: Positive = 0.05
  budget_gain: NonNegative = 4.0
  penalty: str = "l1"
  form: str = "hard"
  last_temperature: Positive = 1.0
  is_strict: bool = False
  num_selected: Count | None = None
  num_null: Count = 8
  counts_null: bool = False
  num_slots: Count | None = None
  distils: bool = False
  added_share: Share = 0.0

  def __post_init__(self) -> None:
    """Refuses what cannot be trained.

    Raises:
      ValueError: a number is out of range, a name unknown, or "added" is to be
        trained where nothing is added.
    """
    super().__post_init__()
    for name, known in (
      ("method", METHODS),
      ("trains", TRAINED),
      ("penalty", PENALTIES),
      ("form", mask_router.FORMS),
    ):
      check_choice(name, getattr(self, name), known)
    if self.trains == "added" and self.method in ("none", "smaller_k"):
      raise ValueError(
        f"method={self.method!r} adds nothing to train, got trains='added'"
      )
    if self.budget is not None and self.method != "beam":
      raise ValueError(
        f"a budget needs method='beam', got method={self.method!r}, "
        f"budget={self.budget}"
      )

  def check_model(self, model: models.Model) -> None:
    """Raises a ValueError if the model has no experts or too few of them."""
    config = model.config
    if config.num_experts is None:
      raise ValueError("the model must have experts, got num_experts=None")
    most = {
      "budget": config.num_selected,
      "num_selected": config.num_selected,
      "num_slots": config.num_experts,
    }
    for name, limit in most.items():
      value = getattr(self, name)
      if value is not None and value > limit:
        raise ValueError(
          f"{name} must be at most {limit} of this model, got {name}={value}"
        )
