"""Upcycles a dense checkpoint into experts and shows what merging is worth."""
