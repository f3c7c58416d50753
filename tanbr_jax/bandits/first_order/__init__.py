"""Learners of a slot's gradient, and of its router's usage."""
