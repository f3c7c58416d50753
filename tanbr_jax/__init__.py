"""Bandit-driven expert merging for Mixture-of-Experts models, in JAX."""
