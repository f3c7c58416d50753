"""Functions that are linear in each of some arguments, derivatives included.

JAX would derive slow transposes for them (a scatter of a gather, a loop that
adds whole arrays), or none (a kernel, a loop whose length is data). Here the
transposes are given, as functions of the same kind, so that derivatives of
every order and in either mode, and `vmap` of them, are calls of such functions
again. A custom JVP or VJP gives one of the two modes only.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from tanbr_jax.simplex.varying import alike


@dataclasses.dataclass(frozen=True)
class Multilinear:
  """A function of arrays that is linear in each of the first few.

  The functions are objects of a module, as what is compiled is kept by them.

  Attributes:
    run: takes and returns arrays, and need not be differentiable itself.
    transposes: one for each linear argument. That of argument i takes the
      cotangent and all arguments, the i-th as a `jax.ShapeDtypeStruct`, and
      returns the cotangent of that argument, by differentiable functions.
    batch: a better `vmap` than that of `run`, or None. Takes the function,
      which arguments have a batch axis, and the arguments with it in front;
      returns the result with that axis, by differentiable functions, or None
      where it is no better.
  """

  run: Callable[..., jax.Array]
  transposes: tuple[Callable[..., jax.Array], ...]
  batch: Callable[..., jax.Array | None] | None = None

  def __call__(self, *args: jax.Array) -> jax.Array:
    """Returns `run(*args)`, differentiable in the linear arguments."""
    return _call.bind(*alike(args), function=self)


_call = Primitive("multilinear")


@functools.partial(jax.jit, static_argnums=0)
def _run(function: Multilinear, *args: jax.Array) -> jax.Array:
  return function.run(*args)


def _abstract(*args: Any, function: Multilinear) -> Any:
  return jax.make_jaxpr(_run, static_argnums=0)(function, *args).out_avals[0]


def _jvp(
  primals: Sequence[jax.Array],
  tangents: Sequence[Any],
  *,
  function: Multilinear,
) -> tuple[jax.Array, Any]:
  out = _call.bind(*primals, function=function)
  terms = [
    _call.bind(*primals[:i], tangent, *primals[i + 1 :], function=function)
    for i, tangent in enumerate(tangents[: len(function.transposes)])
    if not isinstance(tangent, ad.Zero)
  ]
  return out, functools.reduce(jnp.add, terms)


def _transpose(
  grad: Any, *args: Any, function: Multilinear
) -> list[jax.Array | None]:
  grads = [None] * len(args)
  if not isinstance(grad, ad.Zero):
    i = next(i for i, arg in enumerate(args) if ad.is_undefined_primal(arg))
    missing = jax.ShapeDtypeStruct(args[i].aval.shape, args[i].aval.dtype)
    grads[i] = function.transposes[i](grad, *args[:i], missing, *args[i + 1 :])
  return grads


def _batch(
  args: Sequence[jax.Array],
  axes: Sequence[int | None],
  *,
  function: Multilinear,
) -> tuple[jax.Array, int]:
  args = [
    arg if axis is None else jnp.moveaxis(arg, axis, 0)
    for arg, axis in zip(args, axes, strict=True)
  ]
  is_batched = tuple(axis is not None for axis in axes)
  if function.batch is not None:
    out = function.batch(function, is_batched, *args)
    if out is not None:
      return out, 0
  return _call.bind(*args, function=_batched(function, is_batched)), 0


@functools.cache
def _batched(
  function: Multilinear, is_batched: tuple[bool, ...]
) -> Multilinear:
  """`vmap` of the function over the first axis of those arguments."""
  axes = tuple(0 if each else None for each in is_batched)

  def transpose(i: int, grad: jax.Array, *args: Any) -> jax.Array:
    missing = args[i]
    if is_batched[i]:
      missing = jax.ShapeDtypeStruct(missing.shape[1:], missing.dtype)
    others = args[:i] + args[i + 1 :]
    grads = jax.vmap(
      lambda grad, *others: function.transposes[i](
        grad, *others[:i], missing, *others[i:]
      ),
      (0, *axes[:i], *axes[i + 1 :]),
    )(grad, *others)
    return grads if is_batched[i] else jnp.sum(grads, axis=0)

  transposes = tuple(
    functools.partial(transpose, i) for i in range(len(function.transposes))
  )
  return Multilinear(jax.vmap(function.run, axes), transposes)


_call.def_impl(lambda *args, function: _run(function, *args))
_call.def_abstract_eval(_abstract)
ad.primitive_jvps[_call] = _jvp
ad.primitive_transposes[_call] = _transpose
batching.primitive_batchers[_call] = _batch
mlir.register_lowering(
  _call,
  mlir.lower_fun(
    lambda *args, function: _run(function, *args), multiple_results=False
  ),
)
