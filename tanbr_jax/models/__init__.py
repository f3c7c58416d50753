"""Language models whose experts can be merged."""

from tanbr_jax.models.alignment import align_experts
from tanbr_jax.models.base import (
  Generator,
  Model,
  MoeInput,
  MoeOutput,
  Observe,
  Params,
  Reroute,
)
from tanbr_jax.models.byte_lm import ByteLM, ByteLMConfig
from tanbr_jax.models.decoder import Cache, Decoder
from tanbr_jax.models.decoder_config import PRESETS, DecoderConfig, preset
from tanbr_jax.models.decoder_options import AttentionOptions, RouterOptions
from tanbr_jax.models.decoder_rotary import RotaryOptions
from tanbr_jax.models.fine_tunes import (
  Difference,
  FineTunes,
  difference_table,
)
from tanbr_jax.models.generation import generate
from tanbr_jax.models.huggingface.dense_writing import save_dense
from tanbr_jax.models.huggingface.expert_form import expert_form
from tanbr_jax.models.huggingface.fine_tunes import from_finetunes
from tanbr_jax.models.huggingface.gguf_file import find_smollm2
from tanbr_jax.models.huggingface.merged_reading import merge_pretrained
from tanbr_jax.models.huggingface.reading import from_pretrained
from tanbr_jax.models.huggingface.tokenizer import read_tokenizer
from tanbr_jax.models.huggingface.writing import save_pretrained
from tanbr_jax.models.merging import (
  dense_form,
  expert_bytes,
  merge,
  merge_copies,
  upcycle,
)
from tanbr_jax.models.scale_matching import match_scale
from tanbr_jax.models.scanned import ScannedDecoder, scanned
from tanbr_jax.models.scoring import (
  Score,
  mean_over_scored,
  observe_usage,
  over_windows,
  score,
  score_logits,
  task_usage,
)

__all__ = [
  "PRESETS",
  "AttentionOptions",
  "ByteLM",
  "ByteLMConfig",
  "Cache",
  "Decoder",
  "DecoderConfig",
  "Difference",
  "FineTunes",
  "Generator",
  "Model",
  "MoeInput",
  "MoeOutput",
  "Observe",
  "Params",
  "Reroute",
  "RotaryOptions",
  "RouterOptions",
  "ScannedDecoder",
  "Score",
  "align_experts",
  "dense_form",
  "difference_table",
  "expert_bytes",
  "expert_form",
  "find_smollm2",
  "from_finetunes",
  "from_pretrained",
  "generate",
  "match_scale",
  "mean_over_scored",
  "merge",
  "merge_copies",
  "merge_pretrained",
  "observe_usage",
  "over_windows",
  "preset",
  "read_tokenizer",
  "save_dense",
  "save_pretrained",
  "scanned",
  "score",
  "score_logits",
  "task_usage",
  "upcycle",
]
