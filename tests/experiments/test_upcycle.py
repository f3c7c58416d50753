"""The upcycling study on a tiny model: its forms by hand, its resume."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.upcycle import smollm2
from experiments.online import model_source
from experiments.upcycle import command, text
from experiments.upcycle import settings as upcycle_settings
from tanbr_jax import models
from tanbr_jax.training import upcycling

pytest.importorskip("gguf")
pytest.importorskip("tokenizers")
import tiny_gguf  # noqa: E402

pytestmark = pytest.mark.slow

CONTEXT = 8
# Before the fixture puts shorter ones in their place.
LICENCES = text.licences


def write_tasks(folder):
  rng = np.random.default_rng(0)
  for name, letters in (("first", "abcd \n"), ("second", "wxyz .\n")):
    (folder / name).mkdir(parents=True)
    for index in range(10):
      words = "".join(rng.choice(list(letters), 80))
      (folder / name / f"{index}.txt").write_text(words)


def make_config(folder):
  config = smollm2.get_config()
  config.path, config.data.path = (
    str(folder / "tiny.gguf"),
    str(folder / "text"),
  )
  config.cache_dir = str(folder / "cache")
  config.recipes, config.num_seeds = "domains", 1
  config.upcycle.update(
    dtype="float32",
    num_experts=2,
    num_selected=1,
    context=CONTEXT,
    batch_size=4,
    mixes_per_step=2,
    num_steps=2,
    shared_steps=0,
    router_steps=0,
    task_loss=0.0,
    warmup_steps=0,
    learning_rate=1e-2,
  )
  config.validation_windows = config.test_windows = config.other_windows = 2
  config.search_steps, config.new_tokens = 2, 2
  config.prompts = {"first": "ab"}
  return config


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  folder = tmp_path_factory.mktemp("upcycle")
  tiny_gguf.write(folder / "tiny.gguf", layers=1)
  write_tasks(folder / "text")
  config = make_config(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(text, "licences", lambda: "Permission is granted. " * 9)
    command.run(config, workdir=folder / "run", progress=False)
    yield folder, config


def read(study, name):
  return json.loads((study[0] / "run" / name).read_text())


def mean_losses(model, params, windows):
  """Of each task's windows [n, S + 1], in float64 and token by token."""
  found = []
  for rows in windows:
    ids = np.asarray(rows, np.int64)
    logits = np.float64(jax.jit(model.apply)(params, ids[:, :-1]))
    largest = logits.max(-1, keepdims=True)
    log_p = logits - largest
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    found.append(
      -np.mean(
        [
          log_p[row, place, ids[row, place + 1]]
          for row in range(ids.shape[0])
          for place in range(CONTEXT)
        ]
      )
    )
  return found


def test_forms_are_averages_of_the_written_experts(study):
  folder, config = study
  settings = upcycle_settings.read(config)
  tokenizer = models.read_tokenizer(settings.path)
  vocab = len(tiny_gguf.tokens())
  found = text.read(settings, tokenizer, vocab, folder / "cache")
  dense, params = models.from_pretrained(settings.path)
  model, experts = models.from_pretrained(folder / "run" / "domains_0")
  assert model.config.num_experts == 2 and model.config.tied
  record = read(study, "domains_0.json")
  for form, rows in record["weights"].items():
    assert np.sum(rows, axis=1) == pytest.approx(1, abs=1e-5)
    # The dense model with blocks that are averaged here, in float64.
    losses = []
    for task, x in enumerate(np.array(rows)):
      layers = dict(params["params"])
      stack = experts["params"]["layer_0"]["experts"]["stack"]
      own = layers["layer_0"]["experts"]["stack"]
      arrays = {
        key: jnp.asarray(
          np.einsum("e,eij->ij", x, np.float64(getattr(stack, key))),
          jnp.float32,
        )
        for key in ("w_in", "w_gate", "w_out")
      }
      block = {"stack": dataclasses.replace(own, **arrays)}
      layers["layer_0"] = {**layers["layer_0"], "experts": block}
      windows = found.test[:-1] if len(rows) == 1 else [found.test[task]]
      losses += mean_losses(dense, {"params": layers}, windows)
    # Losses of about 15, float32 sums of two experts: 1e-6 each.
    assert record["forms"][form]["loss"][:-1] == pytest.approx(losses, rel=1e-4)
  base = read(study, "base.json")["forms"]["itself"]["loss"]
  assert base == pytest.approx(mean_losses(dense, params, found.test), rel=1e-4)


def test_the_summary_has_means_and_every_prompt_is_continued(study):
  summary = read(study, "summary.json")
  record = read(study, "domains_0.json")
  for form, scores in record["forms"].items():
    assert summary[f"domains/{form}/loss"] == pytest.approx(
      np.mean(scores["loss"][:2])
    )
    key = f"seed_0/domains/{form}/licences_loss"
    assert summary[key] == scores["loss"][2]
  assert summary["task_names"] == "first,second,licences"
  assert set(record["continued"]) == {"itself", "uniform", "own"}
  assert set(record["continued"]["own"]) == {"first"}
  assert set(read(study, "base.json")["continued"]["itself"]) == {"first"}


def test_started_again_it_trains_nothing(study, monkeypatch):
  folder, config = study
  before = read(study, "summary.json")
  (folder / "run" / "summary.json").unlink()
  monkeypatch.setattr(upcycling, "train", None)
  command.run(config, workdir=folder / "run", progress=False)
  assert read(study, "summary.json") == before


def test_mistakes_are_told_before_anything_is_read(study, tmp_path):
  folder, config = study
  for changes, message in (
    ({"recipes": "domain"}, "unknown recipe 'domain', did you mean 'domains'"),
    ({"upcycle.num_experts": 3}, "num_experts=3, num_tasks=2"),
    ({"upcycle.context": 600}, "got upcycle.context=600 for 512"),
    ({"path": str(folder / "run" / "domains_0")}, "must be a dense model"),
    ({"path": str(folder / "none.gguf")}, "there is no file"),
    ({"upcycle.batch_size": 0}, "upcycle.batch_size must be"),
    ({"scored": "train"}, "scored must be .* got 'train'"),
  ):
    one = config.copy_and_resolve_references()
    one.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message) as error:
      command.run(one, workdir=tmp_path / "run", progress=False)
    assert "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


def test_licences_are_those_of_the_installed_packages():
  whole = LICENCES()
  # NumPy's, which every installation here has.
  assert "NumPy Developers" in whole and whole.count("NumPy Developers") < 50


def test_what_was_trained_on_is_neither_chosen_on_nor_served(study):
  folder, config = study
  tokenizer = models.read_tokenizer(folder / "tiny.gguf")
  one = config.copy_and_resolve_references()
  vocab = len(tiny_gguf.tokens())
  read_text = lambda: text.read(  # noqa: E731
    upcycle_settings.read(one), tokenizer, vocab, folder / "cache"
  )
  scored = {}
  for one.scored in ("validation", "test"):
    scored[one.scored] = np.asarray(read_text().test[0])
  assert not np.array_equal(scored["validation"], scored["test"])
  # The online job's source, of a folder that the checkpoint was trained on.
  source = model_source.open_checkpoint(
    model_source.ModelSettings(
      path=str(folder / "run" / "domains_0"),
      finetunes="",
      dtype="",
      context=CONTEXT,
      held_out=True,
    )
  )
  served = source.read_text(config.data.path, folder / "cache").splits
  train = np.asarray(read_text().train.tokens[0])
  np.testing.assert_array_equal(
    served["train"][0], train[: served["train"][0].size]
  )
  window = scored["test"][0].tolist()
  places = np.lib.stride_tricks.sliding_window_view(
    served["test"][0], len(window)
  )
  assert window in places.tolist()
