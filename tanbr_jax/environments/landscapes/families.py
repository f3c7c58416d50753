"""Reward families over the simplex whose best weights can be computed.

The names of `FAMILIES` are those that an experiment's config gives. The papers
measure real models only: every family here is ours, or a classic objective
carried onto the simplex by us [R], sized so that uniform weights lose .05 to .4
of reward a slot; but for `fitted`, whose table a real model's merges made.
Letters: V tasks, E experts, H hidden units.
"""

from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count
from tanbr_jax.environments.landscapes import network_search
from tanbr_jax.environments.landscapes.cosine import cosine
from tanbr_jax.environments.landscapes.family import Family
from tanbr_jax.environments.landscapes.fitted import fitted
from tanbr_jax.environments.landscapes.flat_families import plateau, wheel
from tanbr_jax.environments.landscapes.line_objectives import (
  difficult,
  double_sine,
  garland,
)
from tanbr_jax.environments.landscapes.plane_objectives import (
  ackley,
  himmelblau,
  rastrigin,
)
from tanbr_jax.environments.landscapes.simple_families import (
  linear_contextual,
  quadratic,
  saturating,
)

__all__ = [
  "FAMILIES",
  "Family",
  "ackley",
  "cosine",
  "difficult",
  "double_sine",
  "fitted",
  "garland",
  "himmelblau",
  "linear_contextual",
  "network",
  "plateau",
  "quadratic",
  "rastrigin",
  "saturating",
  "wheel",
]


@ranges.checked
def network(
  *, num_experts: AtLeastTwo, num_tasks: Count, num_hidden: Count = 32
) -> Family:
  """A random two-layer network h(x) = W' tanh(A x + b), not concave.

  Entries of A [H, E] are N(0, 4), of b N(0, 1/4), of W [H, V] N(0, .16 / H).
  The best weights are found by search (see `network_search`).

  Args:
    num_experts: E.
    num_tasks: V.
    num_hidden: H.

  Returns:
    A `Family` whose parameters are the network's and the candidates'.
  """
  sizes = Shape((num_tasks, num_experts, num_hidden))
  return Family(
    Partial(network_search.draw, sizes),
    Partial(network_search.reward),
    Partial(network_search.optimum),
    Partial(network_search.bounds),
  )


FAMILIES = {
  "ackley": ackley,
  "cosine": cosine,
  "difficult": difficult,
  "double_sine": double_sine,
  "fitted": fitted,
  "garland": garland,
  "himmelblau": himmelblau,
  "linear_contextual": linear_contextual,
  "network": network,
  "plateau": plateau,
  "quadratic": quadratic,
  "rastrigin": rastrigin,
  "saturating": saturating,
  "wheel": wheel,
}
