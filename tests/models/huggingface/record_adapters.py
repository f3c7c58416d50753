"""Records what PEFT makes of tiny adapters.

    python tests/models/huggingface/record_adapters.py

writes fixtures/adapters.json, each adapter's config, the names and shapes of
its tensors, and adapters.npz, the logits of the base with each adapter merged
into it. Values are those of `hf_cases.values`. It needs the extra `hf-test`.
"""

import json
import pathlib
import tempfile

import hf_cases
import numpy as np
import peft
import record_fixtures
import safetensors.numpy
from record_fixtures import FOLDER, SEED

# By base: with biases and a tied head, and without both.
ADAPTERS = {
  "llama": [
    {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]},
    {"target_modules": "all-linear", "bias": "lora_only", "use_rslora": True},
    {
      "r": 4,
      "target_modules": ["v_proj", "gate_proj"],
      "bias": "all",
      "rank_pattern": {"layers.1.mlp.gate_proj": 5},
      "alpha_pattern": {"v_proj": 7},
    },
    {
      "r": 2,
      "target_modules": ["o_proj", "q_proj"],
      "lora_bias": True,
      "fan_in_fan_out": True,
      "modules_to_save": ["k_proj", "norm"],
    },
  ],
  "mistral": [
    {"r": 3, "target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    {
      "r": 2,
      "target_modules": ["up_proj"],
      "layers_pattern": "layers",
      "layers_to_transform": [1],
      "modules_to_save": ["embed_tokens", "lm_head"],
    },
  ],
}


def make(name, fields, base, folder, seed):
  """Writes an adapter of a base, and the base."""
  model = record_fixtures.make(name, base, SEED)
  config = peft.LoraConfig(**fields)
  peft.get_peft_model(model, config).save_pretrained(folder)
  file = folder / "adapter_model.safetensors"
  tensors = {
    key: hf_cases.values(key, value.shape, seed)
    for key, value in safetensors.numpy.load_file(file).items()
  }
  safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})


def merged(name, base, folder):
  """The base with the adapter merged into it, by PEFT."""
  model = record_fixtures.make(name, base, SEED)
  return peft.PeftModel.from_pretrained(model, folder).merge_and_unload()


def record(name, scratch):
  described, logits = [], []
  for index, fields in enumerate(ADAPTERS[name]):
    folder = scratch / f"{name}_{index}"
    make(name, fields, scratch / name, folder, SEED + 1 + index)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    for key in ("target_modules", "modules_to_save"):  # sets, in any order
      if isinstance(config[key], list):
        config[key].sort()
    tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    shapes = {key: list(tensors[key].shape) for key in sorted(tensors)}
    described.append({"config": config, "tensors": shapes})
    model = merged(name, scratch / name, folder).eval()
    logits.append(record_fixtures.run(model, *hf_cases.inputs(SEED))[0])
  return described, np.stack(logits)


if __name__ == "__main__":
  found, arrays = {}, {}
  with tempfile.TemporaryDirectory() as scratch:
    for name in ADAPTERS:
      found[name], arrays[name] = record(name, pathlib.Path(scratch))
  text = json.dumps(found, indent=None, separators=(", ", ": "))
  text = text.replace('{"config"', '\n{"config"').replace('"tens', '\n "tens')
  (FOLDER / "adapters.json").write_text(text + "\n")
  np.savez_compressed(FOLDER / "adapters.npz", **arrays)
