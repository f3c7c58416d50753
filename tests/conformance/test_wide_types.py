"""Under x64 environments, models and their training keep their 32 bits.

All is traced, nothing is computed. What strict promotion lets through has no
64-bit value beside one of 32 bits; what comes out is checked here.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
import tiny_pretraining
from jax.tree_util import Partial

from tanbr_jax import bandits, data, models, moe, monitor
from tanbr_jax.environments import mixes, noise
from tanbr_jax.environments.landscapes import families
from tanbr_jax.environments.synthetic import synthetic
from tanbr_jax.online import rounds
from tanbr_jax.training import objectives

E = V = 4
CASES = (
  [(family, "drift", {}) for family in sorted(families.FAMILIES)]
  + [("quadratic", mix, {}) for mix in sorted(mixes.PROCESSES)]
  + [
    ("quadratic", "drift", {"noise_kind": kind, "requests": requests})
    for kind in sorted(noise.KINDS)
    for requests in (None, 5)
  ]
  + [
    ("quadratic", "drift", {"monitor": make(num_tasks=V), "requests": 5})
    for make in (monitor.exponential_moving_average, monitor.count_min_sketch)
  ]
)


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


def types(tree):
  return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("family, mix, options", CASES)
def test_rounds(family, mix, options):
  environment = synthetic(
    family,
    num_experts=E,
    num_tasks=V,
    task_mix=mixes.create(mix, num_tasks=V),
    **options,
  )
  seeds = jnp.arange(2, dtype=jnp.int32)

  def play(bandit):
    carry = rounds.init(bandit, environment, seeds)
    start = jnp.int32(0)
    return rounds.play(
      bandit, environment, carry, seeds, start, chunk_size=3, loop="vmap"
    )

  played = jax.eval_shape(play, bandits.uniform(num_experts=E, num_tasks=V))
  assert types(played) <= {"float32", "int32", "uint32", "bool"}


BYTE_LM = tiny_pretraining.CONFIG.make_model()
MODELS = {"byte_lm": BYTE_LM, "decoder": models.Decoder(models.preset("tiny"))}


def reroute_in_64_bits(tree, layer):
  del tree
  ids = layer.routing.expert_ids.astype(jnp.int64)
  return layer.routing._replace(expert_ids=ids)


@pytest.mark.parametrize("ids_type", ["int32", "int64"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name, ids_type):
  model = MODELS[name]
  num_experts = model.config.num_experts
  ids = jnp.zeros((2, 6), ids_type)
  params = jax.eval_shape(model.init, jax.random.key(0))

  def run(params):
    logits, losses = model.apply(
      params,
      ids,
      attention_mask=jnp.ones((2, 6), bool),
      reroute=Partial(reroute_in_64_bits, ()),
      observe=Partial(moe.observe_losses, ()),
    )
    weights = jnp.full(num_experts, 1 / num_experts, jnp.float32)
    dense, merged = models.merge(model, params, weights)
    return logits, losses, merged, dense.apply(merged, ids)

  def decode(params):
    logits, cache = model.prefill(params, ids, capacity=9)
    return logits, model.decode_step(params, cache, ids[:, 0])

  assert types(params) == {"float32"}
  assert types(jax.eval_shape(run, params)) == {"float32"}
  if name == "decoder":
    decoded = types(jax.eval_shape(decode, params))
    assert decoded <= {"float32", "int32", "bool"}


def test_losses_of_the_pretraining():
  config = tiny_pretraining.CONFIG
  arrays = tiny_pretraining.corpus().splits["train"]
  text = data.from_arrays(arrays, min_length=config.context + 1)
  sizes = {"context": config.context, "batch_size": config.batch_size}
  model = MODELS["byte_lm"]
  settings = dict.fromkeys(("weight_noise", "load_balance", "z_loss"))
  settings = {name: jnp.float32(0.1) for name in settings}
  settings["mixes"] = jnp.ones((7, len(arrays)), jnp.float32) / len(arrays)
  params = {
    "model": jax.eval_shape(model.init, jax.random.key(0)),
    "table": jax.ShapeDtypeStruct((len(arrays), 3), jnp.float32),
  }
  merged = functools.partial(
    objectives.merged_loss, num_mixes=2, is_learnt=True
  )
  for loss in (merged, objectives.routed_loss):
    slope = jax.value_and_grad(
      lambda params, loss=loss: loss(
        text, settings, params, jax.random.key(0), model=model, **sizes
      )
    )
    assert types(jax.eval_shape(slope, params)) == {"float32"}
