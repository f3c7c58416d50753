"""Generated text against what transformers generates, token for token."""

import json

import hf_cases
import hf_folders
import numpy as np
import pytest

from tanbr_jax import models

EXPECTED = json.loads((hf_folders.FIXTURES / "generated.json").read_text())
# Rotary angles that are of a batch's longest sequence differ from those of a
# sequence alone. Mixtral has experts, and windows shorter than the prompts.
CASES = [
  pytest.param(name, marks=() if name == "mixtral" else pytest.mark.slow)
  for name in hf_cases.CASES
  if name != "llama_dynamic"
]


@pytest.mark.parametrize("name", CASES)
def test_prompts_padded_on_either_side_go_on_as_in_transformers(name, tmp_path):
  folder = hf_folders.write(tmp_path / name, name)
  expected = EXPECTED[name]
  text = json.dumps({"eos_token_id": [expected["eos"], hf_cases.VOCAB - 1]})
  if hf_cases.VOCAB - 1 not in np.ravel(expected["tokens"]):
    (folder / "generation_config.json").write_text(text)
  else:
    config = json.loads((folder / "config.json").read_text())
    config["eos_token_id"] = expected["eos"]
    (folder / "config.json").write_text(json.dumps(config))
  model, params = models.from_pretrained(folder)
  ids, mask = hf_cases.inputs(hf_folders.SEED)
  found = models.generate(
    model,
    params,
    ids,
    attention_mask=mask,
    max_new_tokens=hf_cases.NUM_NEW,
    pad_token_id=0,
  )
  np.testing.assert_array_equal(found, expected["tokens"])
