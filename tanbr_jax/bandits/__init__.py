"""Bandits over merge weights, and the registry of their constructors."""

from tanbr_jax.bandits.base import Bandit, Context, Decision, Feedback

__all__ = ["Bandit", "Context", "Decision", "Feedback"]
