"""Times of calls, kernels and slots."""
