"""Estimates of the task mix from the requests of earlier slots."""

from tanbr_jax.monitor.adaptive_average import adaptive_moving_average
from tanbr_jax.monitor.base import Monitor
from tanbr_jax.monitor.moving_average import exponential_moving_average
from tanbr_jax.monitor.sketch import count_min_sketch

__all__ = [
  "Monitor",
  "adaptive_moving_average",
  "count_min_sketch",
  "exponential_moving_average",
]
