"""Figures, drawn from traces and summaries alone."""
