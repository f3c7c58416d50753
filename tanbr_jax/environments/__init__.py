"""Environments, which answer a bandit's merge weights with rewards."""

from tanbr_jax.environments.base import Environment, Outcome

__all__ = ["Environment", "Outcome"]
