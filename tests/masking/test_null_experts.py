import jax
import jax.numpy as jnp
import mask_cases
import numpy as np
import pytest
from mask_cases import MODEL, OWN_GATES, choose

from tanbr_jax import masking, models, moe

# Probabilities of the experts 1, 0, 2 and 3; the null experts' logits are those
# of probabilities .45 and .05 before all are divided by 1.5.
LAYER = mask_cases.layer([[0.3, 0.5, 0.1, 0.1]])
ROUTER = {
  "kernel": jnp.zeros((2, 4, 2)).at[:, 0].set(jnp.log(jnp.array([0.45, 0.05])))
}
ONE = LAYER._replace(hidden=jnp.array([[1.0, 0, 0, 0]]))


def near(expected):
  return [{e: pytest.approx(g, rel=1e-5) for e, g in expected.items()}]


def test_a_null_expert_takes_a_place():
  # The best three of six are 1 (.5), null (.45) and 0 (.3).
  found = choose(masking.null_experts(MODEL, ROUTER), ONE)
  assert found == near({1: 0.625, 0: 0.375})
  # A zero-output expert has its share of the sum, 1.25.
  zero = masking.null_experts(MODEL, ROUTER, counts_null=True)
  assert choose(zero, ONE) == near({1: 0.4, 0: 0.24})
  # A family that does not rescale keeps its own gates.
  own = masking.null_experts(OWN_GATES, ROUTER)
  assert choose(own, ONE) == near({1: 0.5, 0: 0.3})
  own = masking.null_experts(OWN_GATES, ROUTER, counts_null=True)
  assert choose(own, ONE) == near({1: 0.5 / 1.5, 0: 0.3 / 1.5})


def test_the_load_of_null_experts_is_shared():
  router = jax.tree.map(lambda leaf: leaf[0], ROUTER)
  found = masking.observe_balance(router, ONE, None)
  # Shares of the three choices, 1/3 each; those of both null experts 1/6.
  shares = np.array([1 / 3, 1 / 3, 0, 0, 1 / 6, 1 / 6])
  means = np.array([0.3, 0.5, 0.1, 0.1, 0.25, 0.25]) / 1.5
  assert float(found) == pytest.approx(6 * shares @ means, rel=1e-5)


def test_top_any_opens_experts_and_averages_them():
  # Cosines of the token (1, 0, 0, 0): .8, 0, -1 and .6.
  kernel = jnp.array(
    [[0.8, 0.0, -2.0, 3.0], [0.6, 1.0, 0.0, 4.0], [0.0] * 4, [0.0] * 4]
  )
  router = {
    "kernel": jnp.stack([kernel] * 2),
    "threshold": jnp.array([[0.5] * 4, [0.9] * 4]),
  }
  top_any = masking.top_any(MODEL, router)
  # Both above .5 have a half each; above .9 there is none: the nearest is.
  assert choose(top_any, ONE, 0) == near({0: 0.5, 3: 0.5})
  assert choose(top_any, ONE, 1) == near({0: 1.0})
  assert choose(masking.top_any(MODEL, router, num_slots=1), ONE) == near(
    {0: 1.0}
  )
  # One column each of length 1, 1, 2 and 5.
  products = np.float64(kernel.T @ kernel) - np.eye(4)
  loss = np.linalg.norm(products) + (1 + 1 + 2 + 5) / 4
  layer = jax.tree.map(lambda leaf: leaf[0], router)
  found = masking.observe_sparsity(layer, ONE, None)
  assert float(found) == pytest.approx(loss, rel=1e-5)


def test_top_any_begins_with_the_models_routers():
  params = mask_cases.params()
  found = masking.init_top_any(MODEL, params)
  for layer in range(2):
    router = params["params"][f"layer_{layer}"]["experts"]["router"]
    np.testing.assert_array_equal(found["kernel"][layer], router["kernel"])


def test_refuses_routers_that_are_no_plain_softmax():
  router = models.RouterOptions(groups=moe.GroupLimit(2, 1))
  model = models.Decoder(models.preset("tiny", router=router, num_selected=2))
  for make, message in (
    (
      lambda: masking.init_null_router(jax.random.key(0), model, num_null=2),
      "plain softmax router, got scores='softmax', groups=GroupLimit",
    ),
    (
      lambda: masking.init_null_router(jax.random.key(0), MODEL, num_null=0),
      "num_null must be at least 1, got num_null=0",
    ),
    (
      lambda: masking.top_any(MODEL, ROUTER, num_slots=5),
      r"in \[1, 4\], got num_slots=5",
    ),
  ):
    with pytest.raises(ValueError, match=message) as error:
      make()
    assert "\n" not in str(error.value)
