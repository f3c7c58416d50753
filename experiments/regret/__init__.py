"""The regret study: bandits on rewards whose optimum is known."""
