import json
import sys

import pytest

from tanbr_jax import models

WORDS = {"[UNK]": 0, "two": 1, "experts": 2}
TOKENIZER = {
  "version": "1.0",
  "truncation": None,
  "padding": None,
  "added_tokens": [],
  "normalizer": None,
  "pre_tokenizer": {"type": "Whitespace"},
  "post_processor": None,
  "decoder": None,
  "model": {"type": "WordLevel", "vocab": WORDS, "unk_token": "[UNK]"},
}


def test_a_tokenizer_beside_the_model_is_read(tmp_path):
  pytest.importorskip("tokenizers")
  (tmp_path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
  tokenizer = models.read_tokenizer(tmp_path)
  assert tokenizer.encode("two experts merge").ids == [1, 2, 0]
  assert tokenizer.decode([2, 1]) == "experts two"
  (tmp_path / "tokenizer.json").write_text("{}")
  with pytest.raises(ValueError, match="tokenizer.json' cannot be read") as e:
    models.read_tokenizer(tmp_path)
  assert "\n" not in str(e.value)


def test_refuses_what_is_not_there(tmp_path, monkeypatch):
  with pytest.raises(ValueError, match="there is no file .*tokenizer.json"):
    models.read_tokenizer(tmp_path)
  (tmp_path / "tokenizer.json").write_text("{}")
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  with pytest.raises(ValueError, match=r"pip install tanbr-jax\[hf\]"):
    models.read_tokenizer(tmp_path)
