"""Upcycled checkpoints: the dense model's function, Mixtral's folder."""

import dataclasses
import json

import hf_folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import models

IDS = np.array([[5, 1, 30, 17, 33, 2, 9, 12]])
SIZES = {
  "whole": {"num_experts": 4, "num_selected": 2},
  "cut": {"num_experts": 6, "num_selected": 3, "parts": 3},
}


def write_llama(folder):
  """The tiny Llama without biases, twelve neurons wide."""
  hf_folders.write(folder, "llama")
  model, params = models.from_pretrained(folder)
  raw = json.loads(model.origin.config)
  raw |= {"attention_bias": False, "mlp_bias": False, "intermediate_size": 12}
  attention = dataclasses.replace(
    model.config.attention, has_bias=False, has_output_bias=False
  )
  config = dataclasses.replace(
    model.config, attention=attention, has_expert_bias=False, expert_dim=12
  )
  stored = tuple(
    one for one in model.origin.tensors if not one.key.endswith("bias")
  )
  origin = dataclasses.replace(
    model.origin, config=json.dumps(raw), tensors=stored
  )
  bare = models.Decoder(config, origin=origin)
  params = bare.init(jax.random.key(3))
  # Norms that are one hide mistakes.
  leaves, structure = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  leaves = [
    leaf + jnp.asarray(0.2 * rng.standard_normal(leaf.shape), leaf.dtype)
    for leaf in leaves
  ]
  return bare, jax.tree.unflatten(structure, leaves)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
  return write_llama(tmp_path_factory.mktemp("base") / "llama")


def upcycle(dense, name, noise=0.0):
  model = models.expert_form(dense[0], **SIZES[name])
  return model, models.upcycle(jax.random.key(1), model, dense[1], noise=noise)


def logits(model, params):
  return np.asarray(jax.jit(model.apply)(params, IDS))


@pytest.mark.parametrize("name", SIZES)
def test_the_function_is_the_dense_models_at_the_start(dense, name):
  model, params = upcycle(dense, name)
  expected = logits(*dense)
  # Gates sum to one and scale equal outputs: float32 rounding of sums of a
  # dozen terms, a few 1e-7 of the logits' size each.
  atol = 2e-5 * np.abs(expected).max()
  np.testing.assert_allclose(logits(model, params), expected, atol=atol)


def test_parts_are_runs_of_neurons_and_share_a_logit(dense):
  _, params = upcycle(dense, "cut")
  whole = dense[1]["params"]["layer_1"]["experts"]["stack"]
  experts = params["params"]["layer_1"]["experts"]
  for expert in range(6):
    rows = slice(expert % 3 * 4, expert % 3 * 4 + 4)
    stack = jax.tree.map(lambda leaf, e=expert: leaf[e], experts["stack"])
    np.testing.assert_array_equal(stack.w_in, whole.w_in[:, rows])
    np.testing.assert_array_equal(stack.w_gate, whole.w_gate[:, rows])
    # One of three gates of a third each.
    np.testing.assert_array_equal(stack.w_out, 3 * whole.w_out[rows])
  kernel = np.asarray(experts["router"]["kernel"])
  for first in (0, 3):
    for part in (1, 2):
      np.testing.assert_array_equal(kernel[:, first], kernel[:, first + part])
  assert not np.array_equal(kernel[:, 0], kernel[:, 3])


def test_a_written_folder_is_a_mixtral_with_a_tied_head(dense, tmp_path):
  model, params = upcycle(dense, "whole", noise=0.3)
  models.save_pretrained(model, params, tmp_path / "mixtral")
  again, same = models.from_pretrained(tmp_path / "mixtral")
  assert again.config == model.config and again.config.tied
  assert again.origin.family == "mixtral"
  jax.tree.map(np.testing.assert_array_equal, same, params)
  # The merge of it can be written too.
  even = jnp.full(4, 0.25)
  merged = models.merge(again, same, even)
  models.save_dense(*merged, tmp_path / "dense")
  transformers = pytest.importorskip("transformers")
  torch = pytest.importorskip("torch")
  for folder, (one, own) in (
    ("mixtral", (model, params)),
    ("dense", merged),
  ):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / folder
    ).eval()
    with torch.no_grad():
      expected = theirs(torch.from_numpy(IDS)).logits.numpy()
    atol = 2e-5 * np.abs(expected).max()
    np.testing.assert_allclose(logits(one, own), expected, atol=atol)


def test_what_does_not_fit_is_refused(dense, tmp_path):
  model, params = dense
  for sizes, message in (
    ({"num_experts": 4, "num_selected": 2, "parts": 5}, "parts=5"),
    ({"num_experts": 5, "num_selected": 2, "parts": 2}, "num_experts=5"),
    ({"num_experts": 4, "num_selected": 0}, "num_selected=0"),
  ):
    with pytest.raises(ValueError, match=f"parts must divide .*{message}"):
      models.expert_form(model, **sizes)
  with pytest.raises(ValueError, match="has no biases"):
    with_bias, _ = models.from_pretrained(
      hf_folders.write(tmp_path / "llama", "llama")
    )
    models.expert_form(with_bias, num_experts=2, num_selected=1)
  with pytest.raises(ValueError, match="read from a checkpoint of .*got None"):
    models.expert_form(
      models.Decoder(model.config), num_experts=2, num_selected=1
    )
  narrow = dataclasses.replace(
    models.expert_form(model, **SIZES["whole"]).config, expert_dim=5
  )
  with pytest.raises(ValueError, match="got width=12, expert_dim=5"):
    models.upcycle(jax.random.key(0), models.Decoder(narrow), params)
