"""Quality against active experts: learned masks and their rivals."""
