"""The meta-learner against a loop in float64, its bases, changes of scale."""

import first_order_plays as plays
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits

RNG = np.random.default_rng(4)
RATES = np.geomspace(0.02, 0.5, 3)
META_RATE, SHARE = 0.2, 0.05


def softmax(logits):
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def by_hand(gradients, mixes):
  """The weights played, by a loop over slots and base learners."""
  num_tasks, num_experts = mixes.shape[1], gradients.shape[1]
  kinds = [
    (rate, rows, is_adam)
    for rows in (1, num_tasks)
    for is_adam in (True, False)
    for rate in RATES
  ]
  theta = [np.zeros((rows, num_experts)) for _, rows, _ in kinds]
  mean = [np.zeros_like(t) for t in theta]
  square = [np.zeros_like(t) for t in theta]
  weights, spread, played = np.full(len(kinds), 1 / len(kinds)), 0.0, []
  norms = []
  for t, (gradient, mix) in enumerate(zip(gradients, mixes, strict=True), 1):
    shares = [mix if rows > 1 else np.ones(1) for _, rows, _ in kinds]
    points = np.stack(
      [c @ softmax(th) for c, th in zip(shares, theta, strict=True)]
    )
    x = weights @ points
    played.append(x)
    norms = sorted([*norms, np.abs(gradient).max()])[-2:]
    g = gradient / norms[0]
    gains = (points - x) @ g
    spread = 0.99 * spread + 0.01 * weights @ gains**2
    root = np.sqrt(spread / (1 - 0.99**t))
    scaled = np.clip(gains / max(root, 1e-20), -5, 5)
    weights = weights * np.exp(META_RATE * scaled)
    weights = (1 - SHARE) * weights / weights.sum() + SHARE / len(kinds)
    for i, (rate, _, is_adam) in enumerate(kinds):
      p = softmax(theta[i])
      rows = shares[i][:, None] * g
      if not is_adam:
        p = 0.999 * softmax(theta[i] + rate * rows) + 0.001 / num_experts
        theta[i] = np.log(p)
        continue
      slope = p * (rows - (p * rows).sum(1, keepdims=True))
      mean[i] = 0.5 * mean[i] + 0.5 * slope
      square[i] = 0.99 * square[i] + 0.01 * slope**2
      size = np.sqrt(square[i] / (1 - 0.99**t)) + 1e-12
      theta[i] += rate * mean[i] / (1 - 0.5**t) / size
  return np.array(played)


def test_it_is_the_loop_written_out():
  gradients = plays.centred(RNG.uniform(-1, 1, (40, 4)))
  mixes = RNG.dirichlet(np.ones(3), 40)
  bandit = bandits.meta_gradient(
    num_experts=4,
    num_tasks=3,
    least_rate=RATES[0],
    most_rate=RATES[-1],
    num_rates=3,
    meta_rate=META_RATE,
    share=SHARE,
  )
  # 40 steps whose roundings of 6e-8 Adam's divisions by small roots raise; the
  # first gains are differences of equal points.
  np.testing.assert_allclose(
    plays.play_linear(bandit, gradients, mixes),
    by_hand(gradients, mixes),
    atol=2e-4,
  )


def drifting(num_rounds):
  """Centres [V, E] and mixes [T, V] that turn slowly, then jump."""
  centres = RNG.dirichlet(np.ones(5), 3).astype(np.float32)
  angle = np.linspace(0, 4 * np.pi, num_rounds)
  logits = 2 * np.stack([np.cos(angle + a) for a in (0.0, 2.1, 4.2)], axis=1)
  mixes = softmax(logits)
  mixes[num_rounds // 2 :] = mixes[num_rounds // 2 :, ::-1]
  return centres, mixes.astype(np.float32)


def regret(bandit, centres, mixes):
  weights = np.asarray(plays.climb_quadratic(bandit, centres, mixes))
  return np.sum((weights - mixes @ centres) ** 2) / 2


def test_it_is_about_as_good_as_its_best_rate():
  centres, mixes = drifting(600)
  sizes = {"num_experts": 5, "num_tasks": 3}
  single = [
    regret(bandits.online_gradient(**sizes, learning_rate=rate), centres, mixes)
    for rate in (0.01, 0.3, 1.0)
  ]
  rows = [
    regret(
      bandits.online_gradient(**sizes, learning_rate=rate, contextual=True),
      centres,
      mixes,
    )
    for rate in (0.1, 0.3)
  ]
  found = regret(bandits.meta_gradient(**sizes), centres, mixes)
  even = regret(bandits.uniform(**sizes), centres, mixes)
  # Wrong rates cost several times as much as right ones: what it is for.
  assert max(single) > 3 * min(*single, *rows)
  assert found < 1.6 * min(*single, *rows) < 0.1 * even


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_decisions_do_not_depend_on_the_scale_of_gradients(scale):
  gradients = plays.centred(RNG.normal(size=(60, 4)))
  mixes = RNG.dirichlet(np.ones(3), 60)
  bandit = bandits.meta_gradient(num_experts=4, num_tasks=3)
  one = plays.play_linear(bandit, gradients, mixes)
  other = plays.play_linear(bandit, scale * gradients, mixes)
  # As for the other learners: rounding of the units, raised by Adam.
  np.testing.assert_allclose(one, other, atol=1e-4)


def test_it_goes_on_after_a_huge_gradient():
  gradients = np.tile(np.float32([0.75, -0.25, -0.25, -0.25]), (200, 1))
  gradients[7] = [-3e38, 3e38, 0, 0]
  bandit = bandits.meta_gradient(num_experts=4, num_tasks=1)
  weights = plays.play_linear(bandit, gradients)
  assert np.isfinite(weights).all() and weights[-1, 0] > 0.9


def test_it_tells_its_rate():
  bandit = bandits.meta_gradient(num_experts=4, num_tasks=3)
  state = bandit.init(None)
  aux = bandit.select(
    None, state, bandits.Context(jnp.full(3, 1 / 3, jnp.float32))
  ).aux
  # The geometric mean of a geometric grid from .01 to 1, and half of all.
  np.testing.assert_allclose(aux["learning_rate"], 0.1, rtol=1e-5)
  np.testing.assert_allclose(aux["contextual_share"], 0.5, rtol=1e-5)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"least_rate": 0.5, "most_rate": 0.1}, "least_rate=0.5"),
    ({"most_rate": float("inf")}, "most_rate=inf"),
    ({"num_rates": 0}, "num_rates=0"),
    ({"share": 0.0}, "share=0.0"),
    ({"meta_rate": float("nan")}, "meta_rate=nan"),
  ],
)
def test_bad_numbers_are_refused(options, words):
  with pytest.raises(ValueError, match=words) as error:
    bandits.meta_gradient(num_experts=4, num_tasks=3, **options)
  assert "\n" not in str(error.value)
