import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.kernels import implementations
from tanbr_jax.kernels.implementations import Implementation

TABLE = {
  "small": Implementation(
    lambda x: "small", lambda x: f"it takes 3, got {x}" if x > 3 else None
  ),
  "any": Implementation(lambda x: "any"),
  "last": Implementation(lambda x: "last"),
}


def test_none_is_the_first_that_can_run():
  assert implementations.select(None, TABLE, 3)(3) == "small"
  assert implementations.select(None, TABLE, 4)(4) == "any"


def test_a_name_is_that_one_or_the_reason_why_not():
  assert implementations.select("last", TABLE, 3)(3) == "last"
  with pytest.raises(ValueError, match="'small' cannot run: it takes 3, got 4"):
    implementations.select("small", TABLE, 4)
  with pytest.raises(
    ValueError, match=r"one of \['any', 'last', 'small'\], got .*'fast'"
  ):
    implementations.select("fast", TABLE, 3)


def test_the_platform_is_the_default_devices():
  assert implementations.platform() == "cpu"
  for device in (jax.devices("cpu")[0], "cpu"):
    with jax.default_device(device):
      assert implementations.platform() == "cpu"


def test_hopper_kernels_say_why_they_cannot_run(monkeypatch):
  def reason(platform, version):
    monkeypatch.setattr(implementations, "platform", lambda: platform)
    monkeypatch.setattr(jax, "__version_info__", version)
    return implementations.why_not_mosaic_gpu("grouped_matmul")

  def fail():
    raise ImportError("no module plgpu")

  assert reason("tpu", (0, 11, 0)).endswith("the default device is a tpu")
  assert reason("gpu", (0, 10, 2)).startswith("it needs jax >= 0.11")
  monkeypatch.setattr(implementations, "mosaic_gpu", fail)
  assert reason("gpu", (0, 11, 0)).endswith("imported: no module plgpu")


def test_a_kernel_runs_on_its_platform_and_the_reference_elsewhere():
  x = jnp.arange(3.0)
  for name, expected in (("cpu", 2.0), ("cuda", 3.0)):
    run = implementations.on_platform(
      name, lambda x: 2 * x, lambda x: jnp.float32(3) * x
    )
    np.testing.assert_array_equal(jax.jit(run)(x), expected * x)


def test_vmap_loops_over_a_kernel_that_takes_no_batch():
  def kernel(x, y):
    assert x.shape == (2,)
    return jnp.where(y > 0, x, -x)

  run = implementations.on_platform("cpu", kernel, kernel)
  x = jnp.arange(6.0).reshape(3, 2)
  out = jax.vmap(run, (0, None))(x, jnp.float32(-1))
  np.testing.assert_array_equal(out, -x)


def test_static_arguments_come_first_and_give_the_same_function():
  def kernel(factor, x):
    return jnp.float32(factor) * x

  def twice():
    return implementations.on_platform("cpu", kernel, kernel, 2)

  np.testing.assert_array_equal(twice()(jnp.arange(3.0)), [0.0, 2.0, 4.0])
  # Outside of jit each new function would be compiled again.
  assert twice() is twice()
