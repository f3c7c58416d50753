"""The README's program on a checkpoint, as it stands."""

import hf_folders
import numpy as np
from test_readme import run

from tanbr_jax import models


def test_the_checkpoint_program_ends_in_a_dense_folder(
  capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  hf_folders.write(tmp_path / "OLMoE-1B-7B", "olmoe")
  names = run("README.md", 1)
  model, params = models.from_pretrained("merged")
  # Its one expert is always chosen, with a gate of one: the merged model.
  assert model.config.num_experts == 1
  np.testing.assert_allclose(
    model.apply(params, names["prompt"]),
    names["dense"].apply(names["merged"], names["prompt"]),
    atol=1e-4,
  )
  first = np.fromstring(capsys.readouterr().out.strip("[]\n"), int, sep=" ")[0]
  logits = model.apply(params, names["prompt"])
  assert first == np.argmax(logits[0, -1])
