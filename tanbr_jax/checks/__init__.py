"""Checks of what users give: names, and the ranges of numbers."""
