"""A check that rows of the routed block agree with each other.

Masked and merged blocks, merging and the single steps are not compared here;
the library's tests compare them with loops.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from tanbr_jax.timing.device_time import Chain

# The plain reference, or where it is too slow ours, against JAX's own kernel.
REFERENCES = ("routed/xla", "routed")
SAME = ("routed", "shipped")
# In bfloat16 two right answers are apart by about 0.005; one of 1,000 tokens
# that rounding sends to another expert adds 0.03.
MOST_APART = 0.05


def disagreements(chains: Mapping[str, Chain]) -> dict[str, Exception]:
  """Rows of the routed block whose output is not the reference's.

  Args:
    chains: name -> chain, all on the same first inputs.
  """
  same = {n: c for n, c in chains.items() if n.split("/")[0] in SAME}
  reference = next((name for name in REFERENCES if name in same), None)
  if reference is None:
    return {}
  expected, found = same[reference].first(), {}
  for name, chain in same.items():
    apart = float(distance(chain.first(), expected))
    # Written so that NaN is a disagreement.
    if not apart <= MOST_APART:
      text = f"differs from {reference} by {apart:.3g} of its norm"
      found[name] = ArithmeticError(text)
  return found


@jax.jit
def distance(found: jax.Array, expected: jax.Array) -> jax.Array:
  """Norm of the difference over the norm of `expected`, in float32."""
  found, expected = (a.astype(jnp.float32) for a in (found, expected))
  return jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)
