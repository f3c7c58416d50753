"""The online study: a real model serves a drifting stream."""
