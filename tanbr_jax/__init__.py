"""Bandit-driven expert merging for Mixture-of-Experts models, in JAX."""

from tanbr_jax.online import regret, rollout

__all__ = ["regret", "rollout"]
