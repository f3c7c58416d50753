import dataclasses

import jax
import jax.numpy as jnp
import moe_cases
import numpy as np
import pytest

from tanbr_jax.moe.parameters import check_arrays
from tanbr_jax.training import loop


@pytest.mark.parametrize("form", moe_cases.FORMS)
def test_trees_survive_flattening_and_jit(form):
  experts = moe_cases.draw_experts(form)
  leaves, treedef = jax.tree.flatten(experts)
  again = jax.jit(lambda x: x)(jax.tree.unflatten(treedef, leaves))
  assert jax.tree.structure(again) == treedef
  assert again.activation == experts.activation
  assert again.num_experts == moe_cases.NUM_EXPERTS
  jax.tree.map(np.testing.assert_array_equal, again, experts)
  other = dataclasses.replace(experts, activation="gelu")
  assert jax.tree.structure(other) != treedef


@pytest.mark.parametrize("form", moe_cases.FORMS)
def test_a_checkpoint_holds_every_form(form, tmp_path):
  stack = {"stack": moe_cases.draw_experts(form)}
  loop.save(tmp_path / "saved", stack)
  again = loop.load(tmp_path / "saved", jax.eval_shape(lambda: stack))
  assert jax.tree.structure(again) == jax.tree.structure(stack)
  jax.tree.map(np.testing.assert_array_equal, again, stack)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"w_in": jnp.ones(5)}, r"w_in must be \[..., D, F\], got w_in \(5,\)"),
    ({"w_out": jnp.ones((4, 5, 6))}, r"w_out must be \(4, 6, 5\).*\(4, 5, 6\)"),
    ({"w_gate": jnp.ones((3, 5, 6))}, r"w_gate must be \(4, 5, 6\)"),
    ({"b_out": jnp.ones((4, 6))}, r"b_out must be \(4, 5\).*got \(4, 6\)"),
    ({"b_in": jnp.ones(6)}, r"b_in must be \(4, 6\).*got \(6,\)"),
    ({"b_gate": jnp.ones((4, 6))}, "b_gate needs w_gate, got w_gate=None"),
    ({"shared_gate": jnp.ones((5, 1))}, "shared_gate needs shared"),
    ({"activation": "swoosh"}, "activation must be one of .*'swoosh'"),
    ({"shared_gate": jnp.ones(5)}, r"shared_gate must be \(5, 1\)"),
  ],
)
def test_refuses_arrays_that_disagree(change, message):
  experts = dataclasses.replace(moe_cases.draw_experts("plain"), **change)
  with pytest.raises(ValueError, match=message):
    check_arrays(experts)
