"""Training of mergeable models, and what merging is worth on them."""
