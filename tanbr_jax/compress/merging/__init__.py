"""Merging experts: every method into one dense block or into groups."""
