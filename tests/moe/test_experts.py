import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain_moe
import pytest

from tanbr_jax import kernels, moe
from tanbr_jax.moe.experts import SECOND_MOMENTS


def test_plain_draws_are_those_that_checkpoints_hold():
  key = jax.random.key(4)
  experts = moe.init_experts(key, 3, model_dim=5, expert_dim=7)
  in_key, out_key = jax.random.split(key)
  w_in = jax.random.normal(in_key, (3, 5, 7)) * 5**-0.5
  w_out = jax.random.normal(out_key, (3, 7, 5)) * (1.5 * 7) ** -0.5
  np.testing.assert_array_equal(experts.w_in, w_in)
  np.testing.assert_array_equal(experts.w_out, w_out)
  assert experts.activation == "relu2"
  assert len(jax.tree.leaves(experts)) == 2


@pytest.mark.parametrize("name", kernels.ACTIVATIONS)
def test_second_moments_are_the_integrals(name):
  h = np.linspace(-12, 12, 20_001)
  density = np.exp(-(h**2) / 2) / np.sqrt(2 * np.pi)
  moment = np.trapezoid(plain_moe.ACTIVATIONS[name](h) ** 2 * density, h)
  assert SECOND_MOMENTS[name] == pytest.approx(moment, rel=1e-6)


@pytest.mark.parametrize(
  ("activation", "is_gated"), [("relu2", False), ("silu", True)]
)
def test_outputs_keep_the_variance_of_inputs(activation, is_gated):
  @jax.jit
  def run(key):
    experts = moe.init_experts(
      key,
      1,
      model_dim=64,
      expert_dim=256,
      activation=activation,
      is_gated=is_gated,
    )
    x = jax.random.normal(key, (512, 64))
    return moe.merged(experts, x, jnp.ones(1))

  # One draw of 33k weights: the variance is within a tenth of 1 or so.
  assert np.var(run(jax.random.key(1))) == pytest.approx(1.0, abs=0.25)


def test_parts_have_the_shapes_that_were_asked_for():
  shapes = jax.eval_shape(
    lambda key: moe.init_experts(
      key,
      3,
      model_dim=4,
      expert_dim=5,
      activation="gelu",
      is_gated=True,
      has_biases=True,
      shared_dim=6,
      has_shared_gate=True,
    ),
    jax.random.key(0),
  )
  shape = {n: getattr(shapes, n).shape for n in ("w_in", "w_gate", "w_out")}
  assert shape == {
    "w_in": (3, 4, 5),
    "w_gate": (3, 4, 5),
    "w_out": (3, 5, 4),
  }
  assert shapes.b_in.shape == shapes.b_gate.shape == (3, 5)
  assert shapes.b_out.shape == (3, 4)
  assert shapes.shared.w_gate.shape == (4, 6)
  assert shapes.shared_gate.shape == (4, 1)
  assert shapes.shared.activation == shapes.activation == "gelu"


def test_arrays_drawn_are_independent():
  experts = moe.init_experts(
    jax.random.key(2),
    2,
    model_dim=30,
    expert_dim=30,
    is_gated=True,
    shared_dim=30,
  )
  arrays = [*experts.w_in, *experts.w_gate, *experts.w_out]
  arrays += [experts.shared.w_in, experts.shared.w_gate, experts.shared.w_out]
  correlation = np.corrcoef([np.ravel(a) for a in arrays])
  # 900 draws each: a standard error of 1/30.
  assert np.abs(correlation - np.eye(len(arrays))).max() < 5 / 30


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"expert_dim": 0}, "expert_dim=0"),
    ({"shared_dim": 0}, "shared_dim=0"),
    ({"activation": "swoosh"}, "activation='swoosh'"),
    ({"has_shared_gate": True}, "shared_dim=None"),
  ],
)
def test_refuses_impossible_experts(change, message):
  sizes = {"model_dim": 2, "expert_dim": 2}
  with pytest.raises(ValueError, match=message):
    moe.init_experts(jax.random.key(0), 2, **(sizes | change))


def test_fields_are_those_of_one_block():
  def names(cls):
    return [field.name for field in dataclasses.fields(cls)]

  assert names(moe.Experts) == names(moe.FeedForward)
