"""The activations that feed-forward blocks use, by name."""

import functools
import types
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp


def _squared_relu(x: jax.Array) -> jax.Array:
  """Squared ReLU (So et al., Primer, 2021)."""
  return jnp.square(jax.nn.relu(x))


# "gelu" is x times the normal distribution function; "gelu_tanh" is the
# approximation of Hendrycks and Gimpel (2016) that GPT-2 and T5 v1.1 use.
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = (
  types.MappingProxyType(
    {
      "gelu": functools.partial(jax.nn.gelu, approximate=False),
      "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
      "relu": jax.nn.relu,
      "relu2": _squared_relu,
      "silu": jax.nn.silu,
    }
  )
)
