"""Compressing experts offline: scores, pruning and merging, side by side."""
