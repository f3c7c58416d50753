"""Adapters to outside implementations that we compare with."""
