"""The settings of JAX that decide the bits of a result."""

from collections.abc import Mapping
from typing import Any

import jax

_SETTINGS = (
  "jax_default_prng_impl",
  "jax_threefry_partitionable",
  "jax_random_seed_offset",
  "jax_default_matmul_precision",
  "jax_enable_x64",
)


def numerics() -> dict[str, Any]:
  """The settings that decide the bits, and the platform ("cpu", "gpu").

  Something that was begun under others does not continue. Versions of JAX and
  kinds of devices may change a last bit as well, but must change in the life of
  a long run: they are a warning, see `report.workdir.open_workdir`.
  """
  found = {name: getattr(jax.config, name) for name in _SETTINGS}
  return {**found, "platform": jax.default_backend()}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
  """Nested mappings as one dict with dotted names."""
  if not isinstance(value, Mapping):
    return {prefix: value}
  flat = {}
  for name, entry in value.items():
    flat |= flatten(entry, f"{prefix}.{name}" if prefix else str(name))
  return flat


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  """`field=old there, new here` of every field of `now` that differs."""
  old = flatten({name: before.get(name) for name in now})
  new = flatten(now)
  absent = object()
  parts = []
  for name in sorted(old.keys() | new.keys()):
    there, here = old.get(name, absent), new.get(name, absent)
    if there != here:
      texts = ["absent" if x is absent else repr(x) for x in (there, here)]
      parts.append(f"{name}={texts[0]} there, {texts[1]} here")
  return "; ".join(parts)
