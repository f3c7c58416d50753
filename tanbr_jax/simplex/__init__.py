"""Points of the simplex: projection, search and ascent."""
