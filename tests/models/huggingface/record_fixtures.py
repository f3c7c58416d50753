"""Records what transformers computes from tiny checkpoints.

    python tests/models/huggingface/record_fixtures.py

writes fixtures/NAME.json and NAME.npz beside this file for every case of
`hf_cases`: config.json, the tensors' names and shapes, a digest of each tensor
in the family's other layout, and outputs; and generated.json, what each case
continues its prompts with. Parameters are not kept, since
`hf_cases.values` makes them again. It needs the extra `hf-test`.
"""

import json
import pathlib
import sys
import tempfile

import hf_cases
import hf_folders
import numpy as np
import safetensors.numpy
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent / "fixtures"
SEED = 0


def make(name, folder, seed=SEED):
  """A model with parameters by `hf_cases.values`, written to a folder."""
  model_type, fields = hf_cases.CASES[name]
  config = transformers.AutoConfig.for_model(model_type, **fields)
  model = transformers.AutoModelForCausalLM.from_config(
    config, dtype=torch.float32
  )
  model.save_pretrained(folder)
  file = folder / "model.safetensors"
  state = {
    key: hf_cases.values(key, value.shape, seed)
    for key, value in safetensors.numpy.load_file(file).items()
  }
  safetensors.numpy.save_file(state, file, metadata={"format": "pt"})
  return transformers.AutoModelForCausalLM.from_pretrained(
    folder,
    dtype=torch.float32,
    attn_implementation="eager",
    experts_implementation="eager",
  ).eval()


def run(model, ids, mask):
  """Logits, and by layer of experts its input, experts and gates."""
  seen = {"hidden": [], "experts": [], "gates": []}

  def on_router(module, args, output):
    del module
    seen["hidden"].append(args[0].reshape(-1, args[0].shape[-1]).numpy())
    gates, experts = sorted(output[1:], key=lambda x: not x.is_floating_point())
    order = torch.argsort(experts, dim=-1)
    seen["experts"].append(experts.gather(1, order).numpy())
    seen["gates"].append(gates.gather(1, order).float().numpy())

  hooks = [
    module.register_forward_hook(on_router)
    for module in model.modules()
    if type(module).__name__.lower().endswith("topkrouter")
  ]
  mask = torch.tensor(mask)
  positions = (mask.cumsum(1) - 1).clamp(min=0)
  with torch.no_grad():
    out = model(
      input_ids=torch.tensor(ids).long(),
      attention_mask=mask,
      position_ids=positions,
      use_cache=False,
    )
  for hook in hooks:
    hook.remove()
  return out.logits.float().numpy(), {
    key: np.stack(values) for key, values in seen.items() if values
  }


def generate(model, seed=SEED):
  """What follows each prompt, read alone: [3, NUM_NEW], padded with zeros.

  The third token after the first prompt ends a sequence.
  """

  def continue_(ids, eos):
    out = model.generate(
      torch.tensor(ids)[None].long(),
      attention_mask=torch.ones(1, len(ids)).long(),
      max_new_tokens=hf_cases.NUM_NEW,
      do_sample=False,
      eos_token_id=eos,
      pad_token_id=0,
    )[0, len(ids) :]
    return np.pad(out.numpy(), (0, hf_cases.NUM_NEW - len(out)))

  prompts = hf_cases.prompts(seed)
  eos = int(continue_(prompts[0], None)[2])
  found = [continue_(prompt, eos) for prompt in prompts]
  return {"eos": eos, "tokens": [tokens.tolist() for tokens in found]}


def merge_(model, weights):
  """Makes every expert of a layer their average, and the first one's gate 1."""
  for module in model.modules():
    if not type(module).__name__.endswith("Experts"):
      continue
    for value in module.parameters():
      mean = torch.einsum("e,e...->...", torch.tensor(weights), value.data)
      value.data.copy_(mean[None].expand_as(value))
    forward = module.forward

    def one(hidden, experts, gates, forward=forward):
      first = torch.zeros_like(experts[:, :1])
      return forward(hidden, first, torch.ones_like(gates[:, :1]))

    module.forward = one


def compute(model, seed=SEED):
  """What the model computes, whole and merged, as arrays."""
  ids, mask = hf_cases.inputs(seed)
  logits, seen = run(model, ids, mask)
  found = {"logits": logits, **seen}
  if seen:
    count = next(
      len(next(module.parameters()))
      for module in model.modules()
      if type(module).__name__.endswith("Experts")
    )
    weights = np.random.RandomState(seed).dirichlet(np.ones(count))
    found["weights"] = weights.astype(np.float32)
    merge_(model, found["weights"])
    found["merged_logits"], _ = run(model, ids, mask)
  return found


def record_generated():
  """What every case continues its prompts with, one case a line."""
  found = {}
  for name in sorted(hf_cases.CASES):
    with tempfile.TemporaryDirectory() as scratch:
      found[name] = generate(make(name, pathlib.Path(scratch)))
  lines = [
    f" {json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()
  ]
  return "{\n" + ",\n".join(lines) + "\n}\n"


def record(name, seed=SEED):
  """The two parts of a fixture: a description, and arrays."""
  with tempfile.TemporaryDirectory() as scratch:
    folder, fused = pathlib.Path(scratch, "one"), pathlib.Path(scratch, "two")
    model = make(name, folder, seed)
    config = json.loads((folder / "config.json").read_text())
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    model.save_pretrained(fused, save_original_format=False)
    other = safetensors.numpy.load_file(fused / "model.safetensors")
  described = {
    "config": config,
    "tensors": {key: list(value.shape) for key, value in tensors.items()},
    "other": {
      key: hf_folders.digest(value.tobytes())
      for key, value in sorted(other.items())
    },
  }
  if other.keys() == tensors.keys():
    del described["other"]
  return described, compute(model, seed)


if __name__ == "__main__":
  FOLDER.mkdir(exist_ok=True)
  for name in sys.argv[1:] or hf_cases.CASES:
    described, arrays = record(name)
    (FOLDER / f"{name}.json").write_text(json.dumps(described, indent=1) + "\n")
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
    sizes = [file.stat().st_size for file in FOLDER.glob(f"{name}.*")]
    print(f"{name}: {sum(sizes) / 1000:.1f} kB")
  (FOLDER / "generated.json").write_text(record_generated())
