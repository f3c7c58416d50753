"""The activations that feed-forward blocks use, by name."""

import functools
import types
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp


def _squared_relu(x: jax.Array) -> jax.Array:
  """Squared ReLU (So et al., Primer, 2021)."""
  return jnp.square(jax.nn.relu(x))


def _clamped_swish(x: jax.Array) -> jax.Array:
  """The gate of GPT-OSS (2025): x sigmoid(1.702 x), x at most 7."""
  x = jnp.minimum(x, 7.0)
  return x * jax.nn.sigmoid(1.702 * x)


# "gelu" is x times the normal distribution function; "gelu_tanh" is the
# approximation of Hendrycks and Gimpel (2016) that GPT-2 and T5 v1.1 use.
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = (
  types.MappingProxyType(
    {
      "clamped_swish": _clamped_swish,
      "gelu": functools.partial(jax.nn.gelu, approximate=False),
      "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
      "relu": jax.nn.relu,
      "relu2": _squared_relu,
      "silu": jax.nn.silu,
    }
  )
)


def activate(
  activation: str, hidden: jax.Array, gate: jax.Array | None
) -> jax.Array:
  """Returns `act(hidden)`, or `act(gate) * hidden` if there is a gate.

  With the gate of GPT-OSS, "clamped_swish", what is multiplied is clamped too:
  `act(gate) * (clip(hidden, -7, 7) + 1)`.

  Args:
    activation: a key of `ACTIVATIONS`.
    hidden: [..., F] floating.
    gate: [..., F], or None.

  Returns:
    [..., F] of at least float32, which the products' type is cast to once.
  """
  function = ACTIVATIONS[activation]
  wide = hidden.dtype if hidden.dtype.itemsize > 4 else jnp.float32
  if gate is None:
    return function(hidden.astype(wide))
  hidden = hidden.astype(wide)
  if activation == "clamped_swish":
    hidden = jnp.clip(hidden, -7.0, 7.0) + 1.0
  return function(gate.astype(wide)) * hidden
