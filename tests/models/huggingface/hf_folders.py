"""Checkpoint folders of the recorded cases, written without any library."""

import hashlib
import json
import pathlib

import hf_cases
import numpy as np

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SEED = 0  # of the recorded ones


def described(name):
  return json.loads((FIXTURES / f"{name}.json").read_text())


def expected(name):
  with np.load(FIXTURES / f"{name}.npz") as arrays:
    return dict(arrays)


def adapter_logits(name):
  """The logits of the base with each adapter merged, [E, B, S, V]."""
  with np.load(FIXTURES / "adapters.npz") as arrays:
    return arrays[name]


def tensors(name, seed=SEED):
  shapes = described(name)["tensors"]
  return {
    key: hf_cases.values(key, shape, seed) for key, shape in shapes.items()
  }


def write_tensors(path, arrays, dtype="F32"):
  """One file of the format; arrays are float32, or raw of the named type."""
  header, begin = {}, 0
  for key, array in arrays.items():
    places = [begin, begin + array.nbytes]
    header[key] = {
      "dtype": dtype,
      "shape": list(array.shape),
      "data_offsets": places,
    }
    begin = places[1]
  text = json.dumps(header).encode()
  data = b"".join(array.tobytes() for array in arrays.values())
  path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write(folder, name, *, config=None, arrays=None, shards=1):
  """A folder of a case, in one file or in shards with an index."""
  folder.mkdir(exist_ok=True)
  config = {**described(name)["config"], **(config or {})}
  (folder / "config.json").write_text(json.dumps(config))
  arrays = tensors(name) if arrays is None else arrays
  if shards == 1:
    write_tensors(folder / "model.safetensors", arrays)
    return folder
  keys, places = list(arrays), {}
  for index in range(shards):
    file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
    own = keys[index::shards]
    write_tensors(folder / file, {key: arrays[key] for key in own})
    places |= dict.fromkeys(own, file)
  index = {"metadata": {}, "weight_map": places}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  return folder


def read(folder):
  """Every tensor of a folder, by the format's own description."""
  found = {}
  for path in sorted(folder.glob("*.safetensors")):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    for key, value in header.items():
      begin, end = (8 + length + place for place in value["data_offsets"])
      found[key] = value["dtype"], tuple(value["shape"]), data[begin:end]
  return found


def digest(data):
  """The first 16 digits of the bytes' SHA-256."""
  return hashlib.sha256(data).hexdigest()[:16]
