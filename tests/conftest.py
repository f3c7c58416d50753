"""Strict numerics for every test: no silent promotion of dtypes or ranks."""

import atexit
import gc
import os
import shutil
import tempfile

# Tests compile far more than they compute: what one has compiled, no other
# compiles again, in whatever process, as workers and processes that tests start
# follow the variables of the first one. A folder of one's own outlives the run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  folder = tempfile.mkdtemp(prefix="compiled")
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Without most of XLA's passes compilation takes a third less time.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax  # noqa: E402

# A worker of pytest's has one core: code in parts for several of them takes an
# eighth longer.
flags = ["--xla_cpu_parallel_codegen_split_count=1"]
# Jax 0.10 compiles a third faster with the older of XLA's code generators.
if jax.__version_info__ < (0, 11):
  flags.append("--xla_cpu_use_fusion_emitters=false")
flags = os.environ.get("XLA_FLAGS", "").split() + flags
os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys(flags))

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish():
  """Modules and programs live to the end: they are no garbage to look for."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(100_000, 20, 50)
