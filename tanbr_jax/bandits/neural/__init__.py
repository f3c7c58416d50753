"""Bandits on a neural reward model."""
