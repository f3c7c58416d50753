"""A layer's input made by hand, for reroutes without a model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import masking, models, moe

# Three experts of two layers; every layer gets the same input here.
MODEL = models.ByteLM(
  models.ByteLMConfig(
    num_layers=2,
    model_dim=4,
    num_heads=1,
    head_dim=4,
    expert_dim=4,
    num_experts=4,
    num_selected=3,
    context=8,
  )
)
IDS = jax.random.randint(jax.random.key(1), (3, 8), 0, 256)
# Its twin that does not rescale gates.
OWN_GATES = models.Decoder(
  models.preset(
    "tiny",
    num_experts=4,
    num_selected=3,
    model_dim=4,
    router=models.RouterOptions(renormalise=False),
  )
)


@functools.cache
def params():
  return jax.jit(MODEL.init)(jax.random.key(0))


def see_hidden(tree, layer, output):
  del tree
  return layer.hidden, layer.routing.gates, output.output


def see(reroute=None):
  """What `see_hidden` sees of 24 tokens, and the activity; one program."""
  return _see(params(), IDS, reroute)


@jax.jit
def _see(params, ids, reroute):
  def both(tree, layer, output):
    activity = masking.observe_activity()(layer, output)
    return see_hidden(tree, layer, output), activity

  observe = Partial(both, None)
  return MODEL.apply(params, ids, reroute=reroute, observe=observe)[1]


@functools.cache
def experts(num_experts):
  init = functools.partial(
    moe.init_experts, num_experts=num_experts, model_dim=4, expert_dim=4
  )
  return jax.jit(init)(jax.random.key(0))


@functools.partial(jax.jit, static_argnums=(1, 2))
def route(probabilities, num_selected, renormalise):
  logits = jnp.log(probabilities)
  return logits, moe.top_k(logits, num_selected, renormalise=renormalise)


def layer(
  probabilities,
  *,
  num_selected=3,
  renormalise=True,
  token_mask=None,
  hidden=None,
):
  """The input of a router with these probabilities [N, E]."""
  probabilities = np.asarray(probabilities, np.float32)
  num_tokens, num_experts = probabilities.shape
  logits, routing = route(probabilities, num_selected, renormalise)
  if token_mask is None:
    token_mask = np.ones(num_tokens, bool)
  if hidden is None:
    hidden = np.ones((num_tokens, 4))
  return moe.MoeInput(
    jnp.asarray(hidden, jnp.float32),
    logits,
    routing,
    jnp.asarray(token_mask),
    experts(num_experts),
  )


def choose(reroute, given, layer_index=0):
  """Experts and gates by token, as lists of {expert: gate}."""
  routing = jax.jit(moe.seam.of_layer(reroute, layer_index))(given)
  if isinstance(routing, moe.Adjusted):
    routing = routing.routing
  return [
    {
      int(e): float(g)
      for e, g in zip(ids, gates, strict=True)
      if e != moe.NO_EXPERT
    }
    for ids, gates in zip(
      np.asarray(routing.expert_ids), np.asarray(routing.gates), strict=True
    )
  ]


def with_one_expert():
  """The model with K = 1."""
  config = dataclasses.replace(MODEL.config, num_selected=1)
  return dataclasses.replace(MODEL, config=config)
