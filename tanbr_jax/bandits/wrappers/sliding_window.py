"""A bandit that forgets what is older than a window of slots.

Sliding-window UCB (Garivier and Moulines, "On upper-confidence bound policies
for switching bandit problems", ALT 2011) keeps the sums of the last W slots,
which only algorithms with sums allow. [R] Here any bandit is wrapped: two
copies of it learn side by side, one half a window ahead of the other; every
W / 2 slots the older one hands over to the younger one, which hands over to a
fresh one. The copy that decides has learnt from the last W / 2 to W slots (from
all of them before slot W / 2).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  as_pytree,
  begin,
)
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo


class SlidingWindowState(NamedTuple):
  """State of `sliding_window`.

  Attributes:
    older: the wrapped bandit's state that decides.
    younger: the one that takes over next.
    fresh: the one that every copy starts from.
    age: [] int32, slots since the last hand-over.
  """

  older: Any
  younger: Any
  fresh: Any
  age: jax.Array


def _init(bandit: Bandit, key) -> SlidingWindowState:
  fresh = bandit.init(key)
  # Copies: two leaves that share one buffer could not both be donated.
  older, younger = (jax.tree.map(jnp.copy, fresh) for _ in range(2))
  return begin(SlidingWindowState(older, younger, fresh, jnp.int32(0)), key)


def _select(bandit: Bandit, key, state, context: Context) -> Decision:
  decision = bandit.select(key, state.older, context)
  if "leaf" in decision.aux:
    raise ValueError(
      "sliding_window needs a bandit that learns from decisions of its other "
      f"copy, got one that decides by leaves of its own tree: "
      f"aux={sorted(decision.aux)}"
    )
  return decision


def _update(
  bandit: Bandit,
  half,
  key,
  state: SlidingWindowState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> SlidingWindowState:
  copies = zip(jax.random.split(key), (state.older, state.younger), strict=True)
  older, younger = (
    bandit.update(copy_key, copy, context, decision, feedback)
    for copy_key, copy in copies
  )
  age = state.age + jnp.int32(1)
  turns = age >= half

  def choose(turned, kept):
    return jax.tree.map(lambda a, b: jnp.where(turns, a, b), turned, kept)

  return SlidingWindowState(
    older=choose(younger, older),
    younger=choose(state.fresh, younger),
    fresh=state.fresh,
    age=jnp.where(turns, jnp.int32(0), age),
  )


@ranges.checked
def sliding_window(bandit: Bandit, *, window: AtLeastTwo) -> Bandit:
  """Wraps a bandit so that it learns from the last slots alone.

  Costs twice the wrapped bandit's updates and three times its state. Bandits
  on a tree cannot be wrapped: their update reads from `Decision.aux` which leaf
  was played, and the two copies have trees of their own.

  Args:
    bandit: what is wrapped. Both copies learn from every decision, so its
      update may read from `Decision.aux` only what holds for any of its states
      (an arm of a fixed set, the probability that it was drawn with). A copy
      that did not play learns from the gradient at the point that was played.
    window: W, slots; even.

  Raises:
    ValueError: if the window is odd or below 2; when it first decides, if the
      bandit decides by leaves of a tree.
  """
  if window % 2:
    raise ValueError(f"window must be even, got window={window}")
  bandit, half = as_pytree(bandit), jnp.int32(window // 2)
  return bandit._replace(
    init=Partial(_init, bandit),
    select=Partial(_select, bandit),
    update=Partial(_update, bandit, half),
  )
