"""gamma_t of NeuralUCB's theorem: how wide the confidence region is.

Zhou, Li and Gu, "Neural Contextual Bandits with UCB-based Exploration", ICML
2020, Algorithm 1. With L the depth, m the width, J steps of size eta:

  gamma_t = sqrt(1 + C_1 m^-1/6 sqrt(log m) L^4 t^7/6 lambda^-7/6)
            (nu sqrt(log(det Z_t / det lambda I) - 2 log delta
                     + C_2 m^-1/6 sqrt(log m) L^4 t^5/3 lambda^-1/6)
             + sqrt(lambda) S)
          + C_4 (lambda + C_3 t L) ((1 - eta m lambda)^(J/2) sqrt(t / lambda)
             + m^-1/6 sqrt(log m) L^7/2 t^5/3 lambda^-5/3
               (1 + sqrt(t / lambda)))

The paper leaves C_1 to C_3 open; C_4 is ours, 1 in the paper. [R] With
constants of order 1 the terms in m^-1/6 exceed every reward by orders of
magnitude until m is astronomical, the term in J does until J is of the order
of t, and the bandit then plays at random. The default of all four is 0: the
limit of infinite width and of training to the end, in which only the first
line's confidence region is left.
"""

import math

import chex
import jax
import jax.numpy as jnp

from tanbr_jax.bandits.neural.neural_structure import Theorem


def confidence_radius(
  theorem: Theorem,
  *,
  num_slots: chex.Array,
  log_det: chex.Array,
  regularisation: chex.Array,
  contraction: chex.Array,
  width: int,
  depth: int,
  num_steps: int,
) -> jax.Array:
  """Returns gamma_t, [] float32.

  Args:
    theorem: nu, S, delta and the constants.
    num_slots: [] float32, t.
    log_det: [] float32, log(det Z_t / det(lambda I)).
    regularisation: [] float32, lambda.
    contraction: [] float32, eta m lambda, in [0, 1].
    width: m.
    depth: L, layers of weights, the last one included.
    num_steps: J.
  """
  finite = width ** (-1 / 6) * math.sqrt(math.log(width))
  t, lam = num_slots, regularisation
  stretch = jnp.sqrt(
    1 + theorem.c1 * finite * depth**4 * t ** (7 / 6) * lam ** (-7 / 6)
  )
  inside = (
    log_det
    + theorem.c2 * finite * depth**4 * t ** (5 / 3) * lam ** (-1 / 6)
    - 2 * jnp.log(theorem.failure)
  )
  region = theorem.noise * jnp.sqrt(inside) + jnp.sqrt(lam) * theorem.norm
  unconverged = (1 - contraction) ** (num_steps / 2) * jnp.sqrt(t / lam)
  nonlinear = (
    finite
    * depth**3.5
    * t ** (5 / 3)
    * lam ** (-5 / 3)
    * (1 + jnp.sqrt(t / lam))
  )
  training = (lam + theorem.c3 * t * depth) * (unconverged + nonlinear)
  return stretch * region + theorem.c4 * training
