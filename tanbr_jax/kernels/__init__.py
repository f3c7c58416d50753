"""Operations that a device may want its own kernel for."""

from tanbr_jax.kernels.activations import ACTIVATIONS, activate
from tanbr_jax.kernels.arrays import check_is_array
from tanbr_jax.kernels.dispatch_combine import combine, dispatch
from tanbr_jax.kernels.grouped_ffn import grouped_ffn
from tanbr_jax.kernels.grouped_matmul import grouped_matmul
from tanbr_jax.kernels.permutation import Permutation, as_int32, sort_by_group
from tanbr_jax.kernels.selection import largest_ids
from tanbr_jax.kernels.weighted_sum import weighted_sum

__all__ = [
  "ACTIVATIONS",
  "Permutation",
  "activate",
  "as_int32",
  "check_is_array",
  "combine",
  "dispatch",
  "grouped_ffn",
  "grouped_matmul",
  "largest_ids",
  "sort_by_group",
  "weighted_sum",
]
