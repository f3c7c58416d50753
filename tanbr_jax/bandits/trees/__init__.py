"""Bandits on trees over the simplex or over boxes."""
