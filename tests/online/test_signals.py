"""What a run shows its bandit, and which runs are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit, Decision, Needs
from tanbr_jax.environments.base import Environment
from tanbr_jax.online import rollout

E = toy.SIZE
T = 7
RUN = {"num_rounds": T, "seeds": (3, 7), "chunk_size": 3, "progress": False}


def _environment(signal):
  """The toy environment with `signal(t, feedback)` on top of its feedback."""

  def step(key, state, weights):
    mix, t = state
    feedback, outcome, mix = toy._env_step(jnp.float32(0.1), key, mix, weights)
    return signal(t, feedback), outcome, (mix, t + jnp.int32(1))

  return Environment(
    lambda key: (toy._env_init(key), jnp.int32(0)),
    lambda state: toy.Context(state[0]),
    step,
  )


def _gradient(t):
  return jnp.array([1.0, 2.0, -3.0]) * (1.0 + t.astype(jnp.float32))


def _usage(t):
  return jax.nn.one_hot(t % E, E, dtype=jnp.float32)


def _faulty(t, feedback):
  """Round 1 has a NaN, 2 an infinity, 3 no gradient; 4 and 5 a bad usage."""
  gradient = (
    _gradient(t)
    .at[1]
    .set(
      jnp.select([t == 1, t == 2, t == 3], [jnp.nan, -jnp.inf, jnp.nan], 2.0)
    )
  )
  usage = _usage(t)
  return feedback._replace(
    gradient=gradient,
    gradient_count=jnp.where(t == 3, 0, 4),
    usage=jnp.where((t == 4) | (t == 5), jnp.nan, usage),
  )


def _recorder(needs):
  """Keeps the sums of what it was shown, and plays uniform weights."""

  def select(key, state, context):
    del key, context
    weights = jnp.full(E, 1 / E)
    return Decision(weights, {f"sum_{i}": s for i, s in enumerate(state)})

  def update(key, state, context, decision, feedback):
    del key, context, decision
    gradient, usage = feedback.gradient, feedback.usage
    count = feedback.gradient_count
    assert (gradient is None) == (count is None) == ("gradient" not in needs)
    assert (usage is None) == ("usage" not in needs)
    shown = [
      jnp.zeros(E) if gradient is None else gradient,
      jnp.zeros(E) if usage is None else usage,
      jnp.zeros(1) if count is None else count[None].astype(jnp.float32),
    ]
    new = jnp.concatenate(shown)
    return tuple(s + n for s, n in zip(state, new, strict=True))

  init = Partial(lambda key: (jnp.float32(0),) * (2 * E + 1))
  return Bandit(init, select, update, Needs(needs))


def _sums(trace):
  """[T, 2E + 1] of seed 0: sums of gradient, usage, count before a round."""
  names = [f"sum_{i}" for i in range(2 * E + 1)]
  return np.stack([trace.aux[name][0] for name in names], axis=1)


def test_signals_that_are_not_finite_are_absent_and_counted():
  found = rollout.run(
    _recorder(["gradient", "usage"]), _environment(_faulty), **RUN
  )
  expected = np.zeros((T, 2 * E + 1))
  for t in range(T):
    if t not in (1, 2, 3):
      expected[t, :E] = np.array([1.0, 2.0, -3.0]) * (1 + t)
      expected[t, 1] = 2.0
      expected[t, -1] = 4
    if t not in (4, 5):
      expected[t, E + t % E] = 1.0
  before = np.cumsum(expected, axis=0)[:-1]
  # Small whole numbers in float32.
  np.testing.assert_array_equal(_sums(found)[1:], before)
  # Round 3 gives no gradient, so that its NaN is no fault.
  np.testing.assert_array_equal(
    found.nonfinite_signals, np.tile([0, 1, 1, 0, 1, 1, 0], (2, 1))
  )
  assert not found.nonfinite_rewards.any()


@pytest.mark.parametrize("needs", [(), ("usage",)])
def test_a_bandit_is_shown_what_it_needs_and_no_more(needs):
  found = rollout.run(_recorder(needs), _environment(_faulty), **RUN)
  assert not _sums(found)[:, :E].any() and not _sums(found)[:, -1].any()
  assert (_sums(found)[-1, E:-1].sum() > 0) == ("usage" in needs)
  assert found.nonfinite_signals.sum() == (4 if needs else 0)


def _given(**fields):
  return lambda t, feedback: feedback._replace(**fields)


@pytest.mark.parametrize(
  ("fields", "needs", "message"),
  [
    ({}, ("gradient",), "mine needs feedback.gradient, .* gradient_requests"),
    ({}, ("usage",), "mine needs feedback.usage, which .* usage of moe_slots"),
    (
      {},
      ("truth",),
      r"mine may need \['gradient', 'usage'\], got 'truth'",
    ),
    (
      {"gradient": jnp.ones(E + 1), "gradient_count": jnp.int32(1)},
      ("gradient",),
      r"feedback.gradient must be float32\[3\], got float32\[4\]",
    ),
    (
      {"gradient": jnp.ones(E, jnp.bfloat16), "gradient_count": jnp.int32(1)},
      ("gradient",),
      r"feedback.gradient must be float32\[3\], got bfloat16\[3\]",
    ),
    (
      {"gradient": jnp.ones(E), "gradient_count": jnp.float32(1)},
      ("gradient",),
      r"feedback.gradient_count must be int32\[\], got float32\[\]",
    ),
    ({"gradient": jnp.ones(E)}, (), "go together, got no gradient_count"),
    ({"gradient_count": jnp.int32(1)}, (), "go together, got no gradient$"),
    (
      {"usage": jnp.ones((1, E))},
      ("usage",),
      r"feedback.usage must be float32\[3\], got float32\[1, 3\]",
    ),
  ],
)
def test_feedback_that_does_not_fit_is_refused_before_any_work(
  fields, needs, message, tmp_path
):
  bandit = toy.bandit()._replace(needs=Needs(needs))
  with pytest.raises(ValueError, match=message) as error:
    rollout.run(
      bandit,
      _environment(_given(**fields)),
      **RUN,
      name="mine",
      workdir=tmp_path,
    )
  assert "\n" not in str(error.value)
  assert not list(tmp_path.iterdir())
