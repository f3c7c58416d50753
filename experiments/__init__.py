"""Experiments: what is compared, on what, into which files."""
