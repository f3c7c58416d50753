"""Ridge regression, square roots, confidence matrices and features."""

from tanbr_jax.regression.confidence import Confidence, diagonal, full
from tanbr_jax.regression.features import mixed_gradient_features
from tanbr_jax.regression.ridge import Ridge, RidgeState
from tanbr_jax.regression.square_root import SquareRoot

__all__ = [
  "Confidence",
  "Ridge",
  "RidgeState",
  "SquareRoot",
  "diagonal",
  "full",
  "mixed_gradient_features",
]
