"""Recipes of upcycling: what each trains, and what it leaves as it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import data, models
from tanbr_jax.training import objectives, upcycling
from tanbr_jax.training.upcycling import UpcycleConfig

pytest.importorskip("gguf")
import tiny_gguf  # noqa: E402

pytestmark = pytest.mark.slow

CONFIG = UpcycleConfig(
  num_experts=2,
  num_selected=1,
  context=6,
  batch_size=4,
  mixes_per_step=1,
  num_steps=1,
  warmup_steps=0,
  learning_rate=1e-3,
  checkpoint_every=1,
)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
  path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
  tiny_gguf.write(path, layers=1)
  return models.from_pretrained(path)


@pytest.fixture(scope="module")
def text():
  rng = np.random.default_rng(0)
  parts = [rng.integers(low, low + 9, 60, np.uint32) for low in (20, 90)]
  return data.from_arrays(parts, min_length=7)


def run(dense, text, recipe, tmp_path=None, **changes):
  config = dataclasses.replace(CONFIG, **changes)
  return upcycling.train(
    config,
    recipe,
    *dense,
    text,
    seed=3,
    checkpoint_dir=tmp_path,
    progress=False,
  )


def changed(found, dense):
  """Names of leaves that are not the dense model's or copies of them."""
  own, base = found.params["params"], dense[1]["params"]
  names = {
    name
    for name in base
    if not name.startswith("layer_")
    and not np.array_equal(own[name], base[name])
  }
  layer = own["layer_0"]
  for name, part in {**layer, "experts": layer["experts"]["stack"]}.items():
    whole = base["layer_0"][name]
    whole = whole["stack"] if name == "experts" else whole
    pairs = zip(jax.tree.leaves(part), jax.tree.leaves(whole), strict=True)
    if not all(np.array_equal(*np.broadcast_arrays(*p)) for p in pairs):
      names.add(name)
  return names


@pytest.fixture(scope="module")
def domains(dense, text):
  """One step of one domain's expert."""
  return run(dense, text, "domains")


def test_one_step_on_one_domain_moves_its_expert_alone(dense, domains):
  assert changed(domains, dense) == {"experts"}
  np.testing.assert_array_equal(domains.task_weights, np.eye(2))
  base = dense[1]["params"]["layer_0"]["experts"]["stack"].w_in
  own = domains.params["params"]["layer_0"]["experts"]["stack"].w_in
  steps = np.abs(np.asarray(own) - np.asarray(base)[None])
  # One mix a step, that of one task.
  moved = steps.max(axis=(1, 2)) > 0
  assert np.sum(moved) == 1
  # Adam's first step is the rate, wherever there is a gradient.
  np.testing.assert_allclose(np.median(steps[moved]), 1e-3, rtol=1e-2)


def test_routers_are_trained_last_and_alone(dense, text, domains, tmp_path):
  found = run(dense, text, "domains", tmp_path, router_steps=2)
  trees = [dict(one.params["params"]) for one in (found, domains)]
  kernels = []
  for tree in trees:
    experts = tree["layer_0"]["experts"]
    kernels.append(np.asarray(experts["router"]["kernel"]))
    tree["layer_0"] = {**tree["layer_0"], "experts": experts["stack"]}
  assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
  jax.tree.map(np.testing.assert_array_equal, *trees)
  # Started again, both phases are there and give the same bits.
  again = run(dense, text, "domains", tmp_path, router_steps=2)
  jax.tree.map(np.testing.assert_array_equal, again.params, found.params)


def test_experts_branch_from_what_the_control_learnt(dense, text):
  # Two shared steps and one that trains one expert: the other one is the dense
  # model after two steps, which are those of a control of two steps.
  found = run(dense, text, "domains", num_steps=3, shared_steps=2)
  control = run(dense, text, "dense", num_steps=2)
  own, shared = (
    np.asarray(one.params["params"]["layer_0"]["experts"]["stack"].w_in)
    for one in (found, control)
  )
  moved = np.abs(own - shared[None]).max(axis=(1, 2)) > 0
  assert np.sum(moved) == 1
  np.testing.assert_array_equal(own[~moved][0], shared)


def test_tasks_teach_the_routers_whose_experts_are_alike(dense, text):
  # The experts are copies, so that the loss of the text tells the router
  # nothing: what it learns of the tasks is from their cross-entropy.
  windows = data.evaluation_windows(text, 4, 7)
  usage = {}
  for task_loss in (0.0, 1.0):
    found = run(
      dense,
      text,
      "domains",
      learning_rate=1e-9,
      router_rate=1e8,
      router_steps=40,
      load_balance=0.0,
      task_loss=task_loss,
    )
    counts = models.task_usage(found.model, found.params, windows)
    usage[task_loss] = np.diag(counts / counts.sum(axis=1, keepdims=True))
  assert usage[1.0].min() > 0.9 > usage[0.0].min()


def test_the_control_learns_the_text(dense, text):
  found = run(dense, text, "dense", num_steps=8, learning_rate=1e-2)
  assert changed(found, dense) == {"experts"} and found.task_weights is None
  windows = data.evaluation_windows(text, 4, 7).reshape(-1, 7)
  losses = [
    float(jnp.mean(models.score(found.model, params, windows).loss))
    for params in (dense[1], found.params)
  ]
  # Nine letters a task: from the random model's towards log 9 = 2.2.
  assert losses[1] < losses[0] - 1


def test_the_merged_recipe_learns_its_table_and_all_may_be_trained(dense, text):
  found = run(dense, text, "merged", num_steps=3, routed_every=3, trained="all")
  assert changed(found, dense) >= {"embedding", "attention", "experts"}
  first = objectives.first_table(
    "learnt", 3, num_tasks=2, num_experts=2, concentration=0.5, mixing=0.3
  )
  assert np.abs(found.task_weights - jax.nn.softmax(first)).max() > 1e-4
  np.testing.assert_allclose(found.task_weights.sum(axis=1), 1, atol=1e-6)


def test_what_does_not_fit_is_refused(dense, text):
  for recipe, changes, message in (
    ("domain", {}, "recipe must be one of .* got recipe='domain'"),
    ("domains", {"num_experts": 3}, "num_experts=3, num_tasks=2"),
    ("domains", {"mixes_per_step": 4}, "mixes_per_step=4, num_tasks=2"),
    ("merged", {"parts": 2}, "recipe 'merged' needs parts=1, got parts=2"),
  ):
    with pytest.raises(ValueError, match=message):
      run(dense, text, recipe, **changes)
  for changes, message in (
    ({"mixes_per_step": 3}, "batch_size=4, mixes_per_step=3"),
    ({"shared_steps": 1}, "shared_steps=1, num_steps=1"),
    ({"trained": "router"}, "trained must be one of .*got trained='router'"),
    ({"dtype": "int8"}, "dtype must be one of .*got dtype='int8'"),
  ):
    with pytest.raises(ValueError, match=message):
      dataclasses.replace(CONFIG, **changes)
