"""Values that are part of a function's structure rather than its data."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static:
  """A hashable value that `jit` compares instead of tracing.

  An integer bound by `jax.tree_util.Partial` would become a traced array and
  could not be a shape; bound as `Static` it is part of the tree's structure.

  Attributes:
    value: hashable, compared by equality.
  """

  value: Any
