"""Every family against transformers itself, both ways; skipped without it."""

import hf_cases
import hf_folders
import numpy as np
import pytest
import test_dense_writing
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
  found = run(tmp_path / "ours")
  np.testing.assert_array_equal(found, expected["logits"])


def run(folder):
  """The logits of transformers, which finds every tensor it needs."""
  model, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder,
    dtype=torch.float32,
    attn_implementation="eager",
    experts_implementation="eager",
    output_loading_info=True,
  )
  assert not any(info.values())
  return record_fixtures.run(model.eval(), *hf_cases.inputs(SEED))[0]


@pytest.mark.parametrize("name", test_dense_writing.HOMES)
def test_transformers_reads_a_dense_form(name, tmp_path):
  weights = test_dense_writing.layer_weights(name)
  model, params = test_dense_writing.merged(name, tmp_path, weights)
  models.save_dense(model, params, tmp_path / "dense")
  ids, mask = hf_cases.inputs(SEED)
  ours = np.asarray(test_dense_writing.apply(model, params, ids, mask))
  theirs = run(tmp_path / "dense")
  # As in test_checkpoints.
  np.testing.assert_allclose(ours[mask > 0], theirs[mask > 0], atol=1e-4)


def test_what_is_recorded_is_what_is_computed():
  described, arrays = record_fixtures.record("gpt_oss")
  kept = hf_folders.described("gpt_oss")
  assert described["tensors"] == kept["tensors"]
  logits = hf_folders.expected("gpt_oss")["logits"]
  np.testing.assert_allclose(arrays["logits"], logits, atol=1e-5)
