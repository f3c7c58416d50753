"""Derivatives of a scalar function by every composition of both modes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

NAMES = (
  "slope, forward",
  "slope, reverse",
  "forward over reverse",
  "reverse over reverse",
  "reverse over forward",
  "forward over forward",
)


def derivatives(function, point, directions, names):
  """v f' [R], H v [R, n] and v H v [R] by name, for directions [R, n]."""
  x, unravel = ravel_pytree(point)

  def f(x):
    return function(unravel(x))

  gradient = jax.grad(f)

  def along(v):
    def slope(x):
      return jax.jvp(f, (x,), (v,))[1]

    ways = (
      lambda: slope(x),
      lambda: jnp.vdot(gradient(x), v),
      lambda: jax.jvp(gradient, (x,), (v,))[1],
      lambda: jax.grad(lambda x: jnp.vdot(gradient(x), v))(x),
      lambda: jax.grad(slope)(x),
      lambda: jax.jvp(slope, (x,), (v,))[1],
    )
    by_name = dict(zip(NAMES, ways, strict=True))
    return {name: by_name[name]() for name in names}

  return jax.vmap(along)(directions)


def check(function, reference, point, *, names=NAMES, tolerance=1e-4):
  """Compares them with the slopes and the Hessian of plain JAX.

  Args:
    function: what is tested, a pytree like `point` -> [].
    reference: the same function in operations of JAX alone.
    point: pytree of float32 arrays.
    names: the derivatives to compare.
    tolerance: of differences relative to the largest entry: float32 sums of a
      few hundred products in another order.
  """
  size = ravel_pytree(point)[0].size
  directions = np.random.default_rng(3).normal(size=(3, size)).astype("f")

  def wanted(point, directions):
    x, unravel = ravel_pytree(point)
    gradient = jax.grad(lambda x: reference(unravel(x)))
    hvp = jax.vmap(lambda v: jax.jvp(gradient, (x,), (v,))[1])
    return directions @ gradient(x), hvp(directions)

  run = jax.jit(lambda *args: derivatives(function, *args, names))
  found = run(point, directions)
  slopes, products = jax.jit(wanted)(point, directions)
  products = np.asarray(products)
  along = np.sum(products * directions, axis=1)
  wants = (slopes, slopes, products, products, products, along)
  for name in names:
    value = np.asarray(wants[NAMES.index(name)])
    np.testing.assert_allclose(
      found[name],
      value,
      atol=tolerance * np.abs(value).max(),
      rtol=0,
      err_msg=name,
    )
