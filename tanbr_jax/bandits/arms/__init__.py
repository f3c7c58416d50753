"""Bandits over a finite set or a line of merge weights."""
