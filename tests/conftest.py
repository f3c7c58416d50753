"""Strict numerics for every test: no silent promotion of dtypes or ranks."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile far more than they compute: without most of XLA's passes they
# take a third less time. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests what users run;
# processes that tests start follow the variable.
jax.config.update(
  "jax_disable_most_optimizations",
  os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1",
)


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
  """For modules that build one program many times: XLA compiles it once."""
  folder = str(tmp_path_factory.mktemp("compiled"))
  options = {
    "jax_compilation_cache_dir": folder,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
  }
  before = {name: getattr(jax.config, name) for name in options}
  for name, value in options.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
