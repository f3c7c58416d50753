import dataclasses
import json
import os
import shutil
import threading

import jax
import numpy as np
import pytest
import tiny_pretraining

from tanbr_jax.training import loop, objectives, pretraining

CONFIG = tiny_pretraining.CONFIG


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  return pretraining.pretrain(
    CONFIG,
    tiny_pretraining.corpus(),
    cache_dir=tmp_path_factory.mktemp("cache"),
    progress=False,
  )


def _same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
  np.testing.assert_array_equal(one.task_weights, other.task_weights)


def test_a_second_run_reads_the_first(trained):
  again = pretraining.pretrain(
    CONFIG,
    tiny_pretraining.corpus(),
    cache_dir=trained.path.parent,
    progress=False,
  )
  assert trained.seconds > 0 and again.seconds is None
  _same(again, trained)


@pytest.mark.slow
def test_an_interrupted_run_is_not_read_as_whole(
  trained, tmp_path, monkeypatch
):
  real = loop.train

  def dies(losses, params, **kwargs):
    if kwargs["name"] == "dense start":
      return real(losses, params, **kwargs)
    # Stops as a kill would: half of the steps done and saved.
    real(losses, params, **(kwargs | {"num_steps": 6}))
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(loop, "train", dies)
    with pytest.raises(KeyboardInterrupt):
      pretraining.pretrain(
        CONFIG, tiny_pretraining.corpus(), cache_dir=tmp_path, progress=False
      )
  folder = tmp_path / trained.path.name
  assert not (folder / pretraining.FINISHED).exists()
  again = pretraining.pretrain(
    CONFIG, tiny_pretraining.corpus(), cache_dir=tmp_path, progress=False
  )
  assert again.seconds is not None
  _same(again, trained)
  finished = json.loads((folder / pretraining.FINISHED).read_text())
  assert finished["corpus_fingerprint"] == "fingerprint"


def test_fixed_tables_stay_as_they_began(trained):
  first = objectives.first_table(
    CONFIG.table,
    CONFIG.seed,
    num_tasks=3,
    num_experts=CONFIG.num_experts,
    concentration=CONFIG.anchor_concentration,
    mixing=CONFIG.learnt_mixing,
  )
  np.testing.assert_allclose(
    trained.task_weights, jax.nn.softmax(first), rtol=1e-6
  )


def test_fine_tunes_differ_in_their_experts_alone(monkeypatch):
  """Twelve steps later, what is no expert is to the bit what it was."""
  real, starts = loop.train, []

  def train(losses, params, **kwargs):
    starts.append(jax.tree.map(np.array, params))
    return real(losses, params, **kwargs)

  monkeypatch.setattr(loop, "train", train)
  config = dataclasses.replace(
    CONFIG,
    table="identity",
    one_hot_fraction=1.0,
    routed_every=0,
    experts_only=True,
  )
  found = pretraining.pretrain(
    config, tiny_pretraining.corpus(), progress=False
  )
  (_, start) = starts  # of the dense model, then of the experts
  (early, late) = map(
    jax.tree_util.tree_leaves_with_path, (start["model"], found.params)
  )
  for (path, one), (_, other) in zip(early, late, strict=True):
    same = np.array_equal(one, other)
    assert same == ("stack" not in jax.tree_util.keystr(path)), path


def test_the_key_follows_config_and_text():
  corpus = tiny_pretraining.corpus()
  key = pretraining.cache_key(CONFIG, corpus)
  other = dataclasses.replace(CONFIG, seed=1)
  assert pretraining.cache_key(other, corpus) != key
  text = dataclasses.replace(corpus, fingerprint="another")
  assert pretraining.cache_key(CONFIG, text) != key


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"table": "random"}, "got table='random'"),
    ({"mixes_per_step": 3}, "batch_size=8, mixes_per_step=3"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"num_steps": 0}, "num_steps=0"),
    ({"num_selected": 4}, "num_selected=4, num_experts=3"),
    ({"one_hot_fraction": 1.5}, "one_hot_fraction=1.5"),
    ({"mix_concentration": 0.0}, "mix_concentration=0.0"),
  ],
)
def test_refuses_settings_that_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"table": "identity", "num_experts": 4}, "num_experts=4, num_tasks=3"),
    ({"context": 500}, "at least 501 tokens"),
  ],
)
def test_refuses_what_cannot_be_trained(changes, message, tmp_path):
  config = dataclasses.replace(CONFIG, **changes)
  with pytest.raises(ValueError, match=message):
    pretraining.pretrain(
      config, tiny_pretraining.corpus(), cache_dir=tmp_path, progress=False
    )
  assert not list(tmp_path.iterdir())


@pytest.fixture
def trains(trained, monkeypatch):
  """Trains in no time: with the parameters that `trained` has."""
  like = {
    "model": trained.params,
    "table": jax.ShapeDtypeStruct(trained.task_weights.shape, np.float32),
  }
  params = loop.load(trained.path / "params", like)
  monkeypatch.setattr(pretraining, "_train", lambda *args: (params, 1.0))


@pytest.mark.parametrize("damage", ["params", "finished", "half", "foreign"])
def test_a_broken_entry_is_named_and_made_anew(
  damage, trained, trains, tmp_path, caplog
):
  folder = tmp_path / trained.path.name
  shutil.copytree(trained.path, folder)
  marker = folder / pretraining.FINISHED
  if damage == "params":
    for file in (folder / "params").rglob("*"):
      if file.is_file():
        file.write_bytes(file.read_bytes()[:-1])
  elif damage == "finished":
    marker.write_text("[]")
  elif damage == "half":  # killed while `params` was replaced
    shutil.rmtree(folder / "params")
  else:
    about = json.loads(marker.read_text())
    loop.atomic.write_json(marker, about | {"corpus_fingerprint": "other"})
  again = pretraining.pretrain(
    CONFIG, tiny_pretraining.corpus(), cache_dir=tmp_path, progress=False
  )
  assert again.seconds is not None
  _same(again, trained)
  (line,) = [text for text in caplog.messages if "made anew" in text]
  assert str(folder) in line and "\n" not in line
  assert [x.name for x in tmp_path.iterdir()] == [folder.name]


def test_of_two_first_runs_one_trains_and_the_other_waits(
  tmp_path, monkeypatch, trained, trains
):
  """Two threads stand for two processes: they wait for each other, too."""
  corpus, lines, results = tiny_pretraining.corpus(), [], []
  train, begun, waited = (
    pretraining._train,
    threading.Event(),
    threading.Event(),
  )

  def tell(text, *args):
    lines.append(text % args)
    waited.set()

  def slow(*args):
    begun.set()
    assert waited.wait(60)
    return train(*args)

  monkeypatch.setattr(pretraining.cache.lock.logging, "warning", tell)
  monkeypatch.setattr(pretraining, "_train", slow)

  def first():
    results.append(
      pretraining.pretrain(CONFIG, corpus, cache_dir=tmp_path, progress=False)
    )

  thread = threading.Thread(target=first)
  thread.start()
  assert begun.wait(60)
  second = pretraining.pretrain(
    CONFIG, corpus, cache_dir=tmp_path, progress=False
  )
  thread.join()
  assert results[0].seconds is not None and second.seconds is None
  _same(second, results[0])
  _same(second, trained)
  (line,) = lines
  assert line.startswith(f"waiting for process {os.getpid()} on host ")
  assert line.endswith(f", which makes {tmp_path / trained.path.name}")


def test_the_key_follows_the_numerics():
  corpus = tiny_pretraining.corpus()
  key = pretraining.cache_key(CONFIG, corpus)
  with jax.threefry_partitionable(False):
    assert pretraining.cache_key(CONFIG, corpus) != key
