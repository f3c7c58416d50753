"""Adapter folders of the recorded cases, written without any library."""

import json

import hf_cases
import hf_folders

CASES = json.loads((hf_folders.FIXTURES / "adapters.json").read_text())


def tensors(name, index):
  shapes = CASES[name][index]["tensors"]
  seed = hf_folders.SEED + 1 + index
  return {
    key: hf_cases.values(key, shape, seed) for key, shape in shapes.items()
  }


def write(folder, name, index, *, config=None, arrays=None):
  folder.mkdir()
  config = {**CASES[name][index]["config"], **(config or {})}
  (folder / "adapter_config.json").write_text(json.dumps(config))
  arrays = tensors(name, index) if arrays is None else arrays
  hf_folders.write_tensors(folder / "adapter_model.safetensors", arrays)
  return folder


def write_all(scratch, name):
  """The base, and all adapters of it."""
  base = hf_folders.write(scratch / "base", name)
  return base, [
    write(scratch / f"adapter_{i}", name, i) for i in range(len(CASES[name]))
  ]
