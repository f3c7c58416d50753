"""What a run writes: atomic files and the cache."""
