import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe

LOGITS = np.log([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]).astype(np.float32)

top_k = jax.jit(
  moe.top_k,
  static_argnums=1,
  static_argnames=("scores", "renormalise", "groups"),
)


def test_top_k_by_hand():
  routing = top_k(LOGITS, 2)
  np.testing.assert_array_equal(routing.expert_ids, [[2, 1], [0, 1]])
  # .7 and .2 of .9; .5 and .3 of .8.
  np.testing.assert_allclose(
    routing.gates, [[7 / 9, 2 / 9], [5 / 8, 3 / 8]], rtol=1e-5
  )
  plain = top_k(LOGITS, 2, renormalise=False)
  np.testing.assert_allclose(plain.gates, [[0.7, 0.2], [0.5, 0.3]], rtol=1e-5)


def _plain_deepseek_v3(logits, bias, num_selected, limit, scale):
  """Token by token, in float64."""
  ids, gates = [], []
  for row in 1 / (1 + np.exp(-np.float64(logits))):
    biased = (row + bias).reshape(limit.num_groups, -1)
    worth = np.sort(biased, axis=1)[:, -2:].sum(1)
    open_groups = np.argsort(-worth)[: limit.num_selected]
    for group in set(range(limit.num_groups)) - set(open_groups.tolist()):
      biased[group] = -np.inf
    chosen = np.argsort(-biased.reshape(-1))[:num_selected]
    ids.append(chosen)
    gates.append(scale * row[chosen] / row[chosen].sum())
  return np.array(ids), np.array(gates)


def test_deepseek_v3_equals_a_loop():
  rng = np.random.default_rng(3)
  logits = rng.normal(size=(17, 12)).astype(np.float32)
  bias = rng.normal(size=12).astype(np.float32)
  limit = moe.GroupLimit(4, 2, "top2_sum")

  @jax.jit
  def run(logits, bias):
    return moe.top_k(
      logits,
      3,
      scores="sigmoid",
      correction_bias=bias,
      groups=limit,
      gate_scale=2.5,
    )

  routing = run(logits, bias)
  ids, gates = _plain_deepseek_v3(logits, bias, 3, limit, 2.5)
  np.testing.assert_array_equal(routing.expert_ids, ids)
  np.testing.assert_allclose(routing.gates, gates, rtol=1e-5)
  np.testing.assert_allclose(routing.probabilities.sum(1), 1, rtol=1e-5)
  without = top_k(logits, 3, scores="sigmoid")
  assert (without.expert_ids != routing.expert_ids).any()


def test_softmax_after_selection_is_the_renormalised_softmax():
  logits = np.random.default_rng(4).normal(size=(9, 5)).astype(np.float32)

  @jax.jit
  def run(logits):
    def gates(scores):
      return jax.value_and_grad(
        lambda x: jnp.sum(jnp.sin(moe.top_k(x, 3, scores=scores).gates))
      )(logits)

    return gates("softmax_after"), gates("softmax")

  after, before = run(logits)
  np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
  np.testing.assert_allclose(after[1], before[1], rtol=1e-4, atol=1e-6)


def test_router_gradient_reaches_the_logits():
  grad = jax.jit(jax.grad(lambda x: moe.top_k(x, 2).gates[0, 0]))(LOGITS)
  # d/dz of p2/(p2 + p1) = sigmoid(z2 - z1): 7/9 * 2/9 for both, opposite.
  np.testing.assert_allclose(
    grad[0], [0.0, -14 / 81, 14 / 81], rtol=1e-5, atol=1e-7
  )


def test_scores_that_vanish_leave_gates_and_slopes_finite():
  # Sigmoids and softmax of the chosen two underflow to zero in float32.
  logits = jnp.array([[200.0, -200.0, -200.0]])
  bias = jnp.array([-9.0, 0.0, 0.0])

  def gates(logits, scores):
    return jnp.sum(
      moe.top_k(logits, 2, scores=scores, correction_bias=bias).gates
    )

  for scores in ("softmax", "sigmoid"):
    run = jax.jit(jax.value_and_grad(gates), static_argnames="scores")
    value, grad = run(logits, scores=scores)
    assert float(value) == 0.0
    np.testing.assert_array_equal(grad, 0.0)


def test_a_token_of_nan_spoils_its_own_gates_only():
  logits = LOGITS.copy()
  logits[0] = np.nan
  routing = top_k(logits, 2)
  np.testing.assert_array_equal(routing.expert_ids, [[0, 1], [0, 1]])
  assert np.isnan(routing.gates[0]).all()
  np.testing.assert_allclose(routing.gates[1], [5 / 8, 3 / 8], rtol=1e-5)


CLOSED = np.array(
  [
    [np.log(3.0), 0.0, -np.inf, -np.inf],
    [-np.inf] * 4,
    [0.0, -np.inf, -np.inf, -np.inf],
    [-np.inf, -np.inf, 0.0, -np.inf],
  ],
  np.float32,
)
# The softmax of log 3 and 0, and shares of the sigmoids 3/4 and 1/2.
SHARES = {"softmax": 0.75, "softmax_after": 0.75, "sigmoid": 0.6}
SEEN_TOGETHER = (
  ("softmax", "max"),
  ("softmax_after", None),
  ("sigmoid", "top2_sum"),
)


# Each of both once; the other pairs are slow.
@pytest.mark.parametrize(
  ("scores", "groups"),
  [
    pytest.param(
      scores,
      groups,
      marks=[pytest.mark.slow] * ((scores, groups) not in SEEN_TOGETHER),
    )
    for scores in SHARES
    for groups in (None, "max", "top2_sum")
  ],
)
def test_closed_experts_are_never_chosen_and_nothing_is_nan(scores, groups):
  if groups is not None:
    groups = moe.GroupLimit(2, 1, groups)

  def run(logits):
    routing = moe.top_k(logits, 2, scores=scores, groups=groups)
    total = jnp.sum(jnp.sin(routing.gates)) + moe.z_loss(logits)
    return total + jnp.sum(jnp.sin(routing.probabilities)), routing

  run = jax.jit(jax.value_and_grad(run, has_aux=True))
  (_, routing), grad = run(CLOSED)
  np.testing.assert_array_equal(
    routing.expert_ids, [[0, 1], [-1, -1], [0, -1], [2, -1]]
  )
  share = SHARES[scores]
  wanted = np.array([[share, 1 - share], [0, 0], [1, 0], [1, 0]])
  np.testing.assert_allclose(routing.gates, wanted, rtol=1e-6)
  probabilities = np.zeros((4, 4))
  probabilities[0, :2], probabilities[[2, 3], [0, 2]] = wanted[0], 1
  np.testing.assert_allclose(routing.probabilities, probabilities, rtol=1e-6)
  assert np.isfinite(grad).all()
  np.testing.assert_array_equal(grad[1], np.zeros(4))


def test_a_bias_closes_and_a_closed_group_is_not_chosen_for_its_bias():
  bias = np.array([0.0, 0.0, 9.0, -np.inf], np.float32)
  routing = top_k(
    CLOSED[:1],
    2,
    scores="sigmoid",
    correction_bias=bias,
    groups=moe.GroupLimit(2, 1, "top2_sum"),
  )
  np.testing.assert_array_equal(routing.expert_ids, [[0, 1]])
  zeros = np.zeros((1, 4), np.float32)
  routing = top_k(zeros, 4, scores="sigmoid", correction_bias=bias)
  np.testing.assert_array_equal(routing.expert_ids, [[2, 0, 1, -1]])


def test_jitter_is_uniform_around_the_input():
  x = jnp.full((1000, 3), -2.0)
  noisy = np.array(moe.jitter(jax.random.key(0), x, amount=0.1)) / -2
  assert noisy.min() >= 0.9 and noisy.max() <= 1.1
  # Mean and deviation of a uniform variable; 3000 draws, 5 standard errors.
  assert noisy.mean() == pytest.approx(1, abs=0.006)
  assert noisy.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.1)
  np.testing.assert_array_equal(moe.jitter(jax.random.key(0), x, amount=0.0), x)


@pytest.mark.parametrize("num_selected", [0, 4])
def test_refuses_impossible_k(num_selected):
  with pytest.raises(ValueError, match=f"={num_selected}, num_experts=3"):
    moe.top_k(jnp.array(LOGITS), num_selected)


def test_refuses_what_it_cannot_do():
  logits = jnp.ones((2, 4))
  with pytest.raises(ValueError, match="scores='hard'"):
    moe.top_k(logits, 1, scores="hard")
  with pytest.raises(ValueError, match=r"\(3,\), num_experts=4"):
    moe.top_k(logits, 1, correction_bias=jnp.ones(3))
  with pytest.raises(ValueError, match="num_selected=3, GroupLimit"):
    moe.top_k(logits, 3, groups=moe.GroupLimit(2, 1))
  with pytest.raises(ValueError, match=r"\[N, E\], got float32\(4,\)"):
    moe.top_k(logits[0], 1)
  with pytest.raises(ValueError, match="must be an array, got list"):
    moe.top_k([[0.0, 1.0]], 1)
  with pytest.raises(ValueError, match=r"floating \[N, E\], got int32\(2, 4\)"):
    moe.top_k(logits.astype(jnp.int32), 1)
  with pytest.raises(ValueError, match="num_selected=2.0"):
    moe.top_k(logits, 2.0)
  with pytest.raises(ValueError, match="gate_scale=inf"):
    moe.top_k(logits, 1, gate_scale=float("inf"))
  with pytest.raises(ValueError, match="amount=nan"):
    moe.jitter(jax.random.key(0), logits, amount=float("nan"))
  with pytest.raises(ValueError, match="amount=-0.1"):
    moe.jitter(jax.random.key(0), logits, amount=-0.1)


def two_picks(logits, tolerance):
  """One token's experts and gates, in float64."""
  ids, gates, rest = [], [], dict(enumerate(np.float64(logits)))
  for _ in range(2):
    chosen = max(rest, key=rest.get)
    best = rest[chosen]
    near = [
      value
      for value in rest.values()
      if (best - value) / max(abs(value), best) <= 2 * tolerance
    ]
    ids.append(chosen)
    gates.append(1 / sum(np.exp(value - best) for value in near))
    del rest[chosen]
  return ids, gates


def test_sparsemixer_is_two_picks_among_what_is_near():
  logits = 3 * np.random.default_rng(5).normal(size=(40, 4))
  logits = np.concatenate((logits, -np.abs(logits)))  # all below zero too
  logits = logits.astype(np.float32)
  routing = jax.jit(lambda x: moe.sparsemixer(x, tolerance=0.2))(logits)
  routing = jax.device_get(routing)
  for token, row in enumerate(logits):
    ids, gates = two_picks(row, 0.2)
    assert routing.expert_ids[token].tolist() == ids
    np.testing.assert_allclose(routing.gates[token], gates, rtol=1e-5)
  # Some picks have a neighbour, some none.
  assert {True, False} == set(np.asarray(routing.gates[:, 0] < 0.999).tolist())
  with pytest.raises(ValueError, match=r"E >= 2, got \(3, 1\)"):
    moe.sparsemixer(jnp.zeros((3, 1)))
