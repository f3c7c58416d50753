"""Operations that a device may want its own kernel for."""

from tanbr_jax.kernels.grouped_matmul import grouped_matmul
from tanbr_jax.kernels.weighted_sum import weighted_sum

__all__ = ["grouped_matmul", "weighted_sum"]
