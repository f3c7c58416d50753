"""Reward network, gradient features, confidence matrices, ridge regression."""

from tanbr_jax.networks.confidence import Confidence, diagonal, full
from tanbr_jax.networks.features import (
  gradient_features,
  last_layer_features,
  mixed_gradient_features,
)
from tanbr_jax.networks.reward_network import RewardNetwork
from tanbr_jax.networks.ridge import Ridge, RidgeState
from tanbr_jax.networks.square_root import SquareRoot

__all__ = [
  "Confidence",
  "RewardNetwork",
  "Ridge",
  "RidgeState",
  "SquareRoot",
  "diagonal",
  "full",
  "gradient_features",
  "last_layer_features",
  "mixed_gradient_features",
]
