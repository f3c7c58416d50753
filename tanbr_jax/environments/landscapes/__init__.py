"""Families of synthetic rewards with a known optimum."""
