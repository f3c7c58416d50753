"""A tiny Llama in a GGUF file, its values drawn by name."""

import zlib

import gguf
import numpy as np

D, F, LAYERS, HEADS, KV_HEADS = 32, 64, 2, 4, 2
# Byte pairs of the tokenizer, spelt as GPT-2 spells bytes.
MERGES = ("Ġ t", "h e", "Ġt he", "i n")
SPECIAL = ("<|end|>", "<|start|>")
# Every kind of tensor that the file of SmolLM2 has, and halves.
KINDS = gguf.GGMLQuantizationType
TYPES = {"ffn_down": KINDS.Q8_0, "attn_output": KINDS.F16}


def letters():
  """The 256 bytes as GPT-2 spells them (Radford et al., 2019, encoder.py)."""
  plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
  rest = [byte for byte in range(256) if byte not in plain]
  return {b: chr(b) for b in plain} | {
    b: chr(256 + i) for i, b in enumerate(rest)
  }


def tokens():
  spelt = letters()
  return [
    *SPECIAL,
    *(spelt[byte] for byte in range(256)),
    *(pair.replace(" ", "") for pair in MERGES),
  ]


def shapes(*, layers=LAYERS, is_tied=True, has_bias=False):
  """Every tensor's name and shape, as NumPy has it."""
  kv = D // HEADS * KV_HEADS
  layer = {
    "attn_norm.weight": (D,),
    "ffn_norm.weight": (D,),
    "attn_q.weight": (D, D),
    "attn_k.weight": (kv, D),
    "attn_v.weight": (kv, D),
    "attn_output.weight": (D, D),
    "ffn_gate.weight": (F, D),
    "ffn_up.weight": (F, D),
    "ffn_down.weight": (D, F),
  }
  if has_bias:
    layer |= {f"attn_{n}.bias": (D if n == "q" else kv,) for n in "qkv"}
    layer["attn_output.bias"] = (D,)
  found = {"token_embd.weight": (len(tokens()), D), "output_norm.weight": (D,)}
  if not is_tied:
    found["output.weight"] = (len(tokens()), D)
  for index in range(layers):
    found |= {f"blk.{index}.{name}": shape for name, shape in layer.items()}
  return found


def draw(name, shape):
  """A tensor's values: no norm is one, no bias zero, no two tensors alike."""
  state = np.random.RandomState(zlib.crc32(name.encode()))
  noise = state.standard_normal(shape).astype(np.float32)
  if "norm" in name:
    return 1 + np.float32(0.3) * noise
  if name.endswith("bias"):
    return np.float32(0.2) * noise
  if name.startswith("token_embd"):
    return noise
  return np.float32(1.2 * shape[-1] ** -0.5) * noise


def write(path, *, layers=LAYERS, changes=None, extra=(), **options):
  """Writes the file; returns the values that it stands for by their names.

  Args:
    path: the file.
    layers: how many.
    changes: keys with other values, None for those to leave out.
    extra: names of further tensors, of 32 zeros.
    **options: of `shapes`.
  """
  writer = gguf.GGUFWriter(path, "llama")
  keys = {
    "llama.block_count": layers,
    "llama.context_length": 512,
    "llama.embedding_length": D,
    "llama.feed_forward_length": F,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.rope.dimension_count": D // HEADS,
    "llama.rope.freq_base": 1e5,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": len(tokens()),
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 0,
  } | (changes or {})
  for name, value in keys.items():
    if isinstance(value, float):
      writer.add_float32(name, value)
    elif isinstance(value, str):
      writer.add_string(name, value)
    elif value is not None:
      writer.add_uint32(name, value)
  writer.add_array("tokenizer.ggml.tokens", tokens())
  kinds = [3] * len(SPECIAL) + [1] * (len(tokens()) - len(SPECIAL))
  writer.add_array("tokenizer.ggml.token_type", kinds)
  writer.add_array("tokenizer.ggml.merges", list(MERGES))
  values = {}
  for name, shape in shapes(layers=layers, **options).items():
    array = draw(name, shape)
    kind = KINDS.F32
    if len(shape) > 1:
      kind = TYPES.get(name.split(".")[-2], KINDS.Q4_1)
    stored = gguf.quants.quantize(array, kind)
    values[name] = gguf.quants.dequantize(stored, kind)
    writer.add_tensor(name, stored, raw_dtype=kind)
  for name in extra:
    writer.add_tensor(name, np.zeros(32, np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return values
