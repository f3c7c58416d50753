"""The speed study: rounds a second of bandits."""
