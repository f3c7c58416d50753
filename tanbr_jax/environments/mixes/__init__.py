"""Processes that make the task mix of every slot."""
