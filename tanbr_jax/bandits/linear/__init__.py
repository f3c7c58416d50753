"""Bandits on models linear in fixed features, and on Gaussian processes."""
