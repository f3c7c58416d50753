"""How long calls, kernels and slots take."""
