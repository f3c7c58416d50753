"""Norms of a decoder; sums are float32."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax.models.decoder_config import DecoderConfig

BIAS = "_bias"


def norm(
  params: dict[str, Any], name: str, x: jax.Array, config: DecoderConfig
) -> jax.Array:
  """Normalises the last axis with the scale, and the bias, of that name.

  Args:
    params: with `name` [D] and, for LayerNorm, `name` + `BIAS`.
    name: of the norm.
    x: [..., D].
    config: says which norm it is.

  Returns:
    The shape and type of x.
  """
  if config.norm == "rms":
    return rms_norm(x, params[name], config.norm_eps)
  wide = x.astype(jnp.float32)
  wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
  out = _unit(wide, config.norm_eps).astype(x.dtype) * _rows(params[name], x)
  return out + _rows(params[name + BIAS], x)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  """Divides by the root mean square of the last axis, times a scale.

  Zhang and Sennrich, RMSNorm (2019), equation 4.
  """
  return _unit(x.astype(jnp.float32), eps).astype(x.dtype) * _rows(scale, x)


def init_norm(name: str, config: DecoderConfig) -> dict[str, jax.Array]:
  """The parameters of a norm that changes no scale."""
  params = {name: jnp.ones(config.model_dim, config.dtype)}
  if config.norm == "layer":
    params[name + BIAS] = jnp.zeros(config.model_dim, config.dtype)
  return params


def _unit(wide: jax.Array, eps: float) -> jax.Array:
  mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
  return wide * lax.rsqrt(mean_square + eps)


def _rows(scale: jax.Array, x: jax.Array) -> jax.Array:
  return scale.reshape((1,) * (x.ndim - 1) + (-1,))
