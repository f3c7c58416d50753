"""Shapes of the decoder family, and presets of known models.

Letters: D model width, E experts, F an expert's hidden width, K experts per
token, L layers with experts, W a head's width.
"""

import dataclasses
from types import MappingProxyType
from typing import Any

from tanbr_jax import kernels
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import Count, Positive, Real, Whole
from tanbr_jax.models.base import DTYPES
from tanbr_jax.models.decoder_options import AttentionOptions, RouterOptions
from tanbr_jax.models.decoder_rotary import DynamicScaling, RotaryOptions

NORMS = ("rms", "layer")
NORM_PLACES = ("before", "after")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(ranges.Checked):
  """The shape of a `Decoder`.

  Attributes:
    num_layers: of all layers, those without experts too.
    model_dim: D.
    num_heads: query heads.
    num_kv_heads: key and value heads; each serves equally many query heads.
    head_dim: width of one head, even.
    expert_dim: F.
    num_experts: E, or None for the dense model that merging makes.
    num_selected: K, experts per token of the routed forward.
    vocab_size: number of tokens.
    activation: a name of `kernels.ACTIVATIONS`.
    is_gated: whether an FFN is act(x w_gate) * (x w_in) or act(x w_in).
    has_expert_bias: whether experts have biases.
    shared_dim: hidden width of the expert that every token sees; None for none.
    has_shared_gate: whether a sigmoid of each token scales that expert.
    dense_layers: layers with one FFN in the experts' place.
    dense_dim: hidden width of those FFNs; None without such layers.
    has_dense_bias: whether those FFNs and the shared expert have biases.
    router: from the routers' logits to experts and gates.
    attention: what is added to plain causal attention.
    rotary: how positions turn queries and keys.
    norm: "rms", or "layer" for LayerNorm with a bias.
    norm_place: "before" attention and FFN, or "after" them, before their
      output is added to the residual stream.
    norm_eps: added to the mean square in every norm.
    embedding_scale: what the embedded tokens are multiplied with.
    residual_scale: what each layer's two outputs are multiplied with.
    logit_scale: what the logits are multiplied with.
    tied: whether the output head is the embedding's transpose.
    has_head_bias: whether the logits have a bias.
    dtype: of parameters and computation; routers and norms' sums are float32.
    context: the longest sequence, None for no limit.
  """

  num_layers: Count
  model_dim: Count
  num_heads: Count
  num_kv_heads: Count
  head_dim: Count
  expert_dim: Count
  num_experts: Count | None
  num_selected: Count
  vocab_size: Count
  activation: str = "silu"
  is_gated: bool = True
  has_expert_bias: bool = False
  shared_dim: Count | None = None
  has_shared_gate: bool = False
  dense_layers: tuple[Whole, ...] = ()
  dense_dim: Count | None = None
  has_dense_bias: bool = False
  router: RouterOptions = RouterOptions()
  attention: AttentionOptions = AttentionOptions()
  rotary: RotaryOptions = RotaryOptions()
  norm: str = "rms"
  norm_place: str = "before"
  norm_eps: Positive = 1e-5
  embedding_scale: Real = 1.0
  residual_scale: Real = 1.0
  logit_scale: Real = 1.0
  tied: bool = False
  has_head_bias: bool = False
  dtype: str = "bfloat16"
  context: Count | None = None

  def __post_init__(self) -> None:
    """Refuses sizes that cannot be.

    Raises:
      ValueError: if a size is too small, sizes disagree or a name is unknown.
    """
    super().__post_init__()
    self._check_sizes()
    for name, known in (
      ("activation", tuple(kernels.ACTIVATIONS)),
      ("norm", NORMS),
      ("norm_place", NORM_PLACES),
      ("dtype", DTYPES),
    ):
      check_choice(name, getattr(self, name), known)

  def _check_sizes(self) -> None:
    if self.num_heads % self.num_kv_heads or self.head_dim % 2:
      raise ValueError(
        "num_heads must be a multiple of num_kv_heads and head_dim even, got "
        f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, "
        f"head_dim={self.head_dim}"
      )
    if self.num_experts is not None and self.num_selected > self.num_experts:
      raise ValueError(
        "num_selected must be in [1, num_experts], got "
        f"num_selected={self.num_selected}, num_experts={self.num_experts}"
      )
    if (self.rotary.dim or 0) > self.head_dim:
      raise ValueError(
        "rotary.dim must be at most head_dim, got "
        f"rotary.dim={self.rotary.dim}, head_dim={self.head_dim}"
      )
    turned = self.rotary.dim or self.head_dim
    if isinstance(self.rotary.scaling, DynamicScaling) and turned < 4:
      raise ValueError(f"dynamic scaling turns 4 values or more, got {turned}")
    self._check_parts()

  def _check_parts(self) -> None:
    outside = [i for i in self.dense_layers if not 0 <= i < self.num_layers]
    if outside or bool(self.dense_layers) != (self.dense_dim is not None):
      raise ValueError(
        "dense_layers must be in [0, num_layers) and go with a dense_dim, got "
        f"dense_layers={self.dense_layers}, dense_dim={self.dense_dim}, "
        f"num_layers={self.num_layers}"
      )
    if self.has_shared_gate and self.shared_dim is None:
      raise ValueError("has_shared_gate needs a shared_dim, got None")
    if self.router.scores == "sparsemixer" and self.num_selected != 2:
      raise ValueError(
        "sparsemixer chooses num_selected=2 experts, got "
        f"num_selected={self.num_selected}"
      )

  @property
  def moe_layers(self) -> tuple[int, ...]:
    """The L layers with experts, or, once merged, with what they became."""
    return tuple(
      i for i in range(self.num_layers) if i not in self.dense_layers
    )


PRESETS = MappingProxyType(
  {
    # For tests and a first look: every part of the others at once.
    "tiny": DecoderConfig(
      num_layers=2,
      model_dim=16,
      num_heads=4,
      num_kv_heads=2,
      head_dim=8,
      expert_dim=24,
      num_experts=4,
      num_selected=2,
      vocab_size=64,
      shared_dim=12,
      attention=AttentionOptions(query_key_norm="head"),
      dtype="float32",
    ),
    # Jiang et al., Mixtral of Experts (2024), table 1.
    "mixtral_8x7b": DecoderConfig(
      num_layers=32,
      model_dim=4096,
      num_heads=32,
      num_kv_heads=8,
      head_dim=128,
      expert_dim=14336,
      num_experts=8,
      num_selected=2,
      vocab_size=32000,
      rotary=RotaryOptions(theta=1e6),
    ),
    # Muennighoff et al., OLMoE (2024): gates are not rescaled.
    "olmoe_1b_7b": DecoderConfig(
      num_layers=16,
      model_dim=2048,
      num_heads=16,
      num_kv_heads=16,
      head_dim=128,
      expert_dim=1024,
      num_experts=64,
      num_selected=8,
      vocab_size=50304,
      router=RouterOptions(renormalise=False),
      attention=AttentionOptions(query_key_norm="projection"),
    ),
    # Qwen Team, Qwen3 Technical Report (2025), table 2.
    "qwen3_30b_a3b": DecoderConfig(
      num_layers=48,
      model_dim=2048,
      num_heads=32,
      num_kv_heads=4,
      head_dim=128,
      expert_dim=768,
      num_experts=128,
      num_selected=8,
      vocab_size=151936,
      attention=AttentionOptions(query_key_norm="head"),
      rotary=RotaryOptions(theta=1e6),
      norm_eps=1e-6,
    ),
    # The FFNs of T5-base's 12 + 12 layers with 8 experts each (arXiv
    # 2509.19781) in one decoder-only stack: a reconstruction of their sizes,
    # not of T5's encoder, cross-attention and relative positions.
    "t5_base_x8": DecoderConfig(
      num_layers=24,
      model_dim=768,
      num_heads=12,
      num_kv_heads=12,
      head_dim=64,
      expert_dim=3072,
      num_experts=8,
      num_selected=1,
      vocab_size=32128,
      activation="relu",
      is_gated=False,
      router=RouterOptions(renormalise=False),
      norm_eps=1e-6,
      tied=True,
    ),
  }
)


def preset(name: str, **changes: Any) -> DecoderConfig:
  """Returns a known model's shape with some fields changed.

  Args:
    name: a key of `PRESETS`.
    **changes: fields of `DecoderConfig`, for instance `num_layers=8` to cut
      a model to what fits.

  Raises:
    ValueError: if the preset or a field is unknown, or the sizes cannot be.
  """
  check_choice("preset", name, PRESETS)
  known = {field.name for field in dataclasses.fields(DecoderConfig)}
  if unknown := sorted(set(changes) - known):
    raise ValueError(f"preset has no field {unknown[0]!r}, got {changes}")
  return dataclasses.replace(PRESETS[name], **changes)
