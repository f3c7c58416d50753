"""Environments: what answers a bandit's merge weights with rewards."""

from tanbr_jax.environments import mixes
from tanbr_jax.environments.base import Environment, Outcome

# Also by the name of what its processes make.
task_mix = mixes

__all__ = ["Environment", "Outcome", "mixes", "task_mix"]
