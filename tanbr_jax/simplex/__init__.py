"""Points of the simplex: draws, checks, projections, ascent and search."""
