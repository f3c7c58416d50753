"""The online loop, its traces, and what they say."""
