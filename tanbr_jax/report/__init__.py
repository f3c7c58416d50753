"""A run's folder: configuration, tables, summary, page."""
