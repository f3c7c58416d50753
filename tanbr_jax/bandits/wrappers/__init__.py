"""Bandits made of bandits: rewards that change or come late."""
