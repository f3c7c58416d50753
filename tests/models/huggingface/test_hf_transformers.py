"""Every family against transformers itself, both ways; skipped without it."""

import hf_cases
import hf_folders
import numpy as np
import pytest
from test_checkpoints import check

from tanbr_jax import models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.24")
record_fixtures = pytest.importorskip("record_fixtures")
pytestmark = pytest.mark.filterwarnings("default")
SEED = 1


@pytest.mark.parametrize("name", hf_cases.CASES)
def test_both_compute_the_same_and_read_each_other(name, tmp_path):
  theirs = record_fixtures.make(name, tmp_path / "theirs", SEED)
  expected = record_fixtures.compute(theirs, SEED)
  model, params = check(tmp_path / "theirs", expected, SEED)
  models.save_pretrained(model, params, tmp_path / "ours")
  again = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "ours",
    dtype=torch.float32,
    attn_implementation="eager",
    experts_implementation="eager",
  ).eval()
  found, _ = record_fixtures.run(again, *hf_cases.inputs(SEED))
  np.testing.assert_array_equal(found, expected["logits"])


def test_what_is_recorded_is_what_is_computed():
  described, arrays = record_fixtures.record("gpt_oss")
  kept = hf_folders.described("gpt_oss")
  assert described["tensors"] == kept["tensors"]
  logits = hf_folders.expected("gpt_oss")["logits"]
  np.testing.assert_allclose(arrays["logits"], logits, atol=1e-5)
