from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.timing import device_time
from tanbr_jax.timing.device_time import Chain, Job


def product(x, y):
  return x @ y


def sets(count, size=4):
  """[size, size] matrices of small integers, whose products are exact."""
  rng = np.random.default_rng(0)
  draw = rng.integers(-3, 4, (count, 2, size, size)).astype(np.float32)
  return [(jnp.asarray(x), jnp.asarray(y)) for x, y in draw]


def test_a_chain_calls_the_function_on_inputs_that_take_turns():
  inputs = sets(3)
  expected = [np.asarray(x) @ np.asarray(y) for x, y in inputs]
  chain = Chain(product, inputs, length=2)
  # Calls go on where the last program's ended: 0 1, then 2 0, then 1 2.
  np.testing.assert_array_equal(chain.run(1), expected[:2])
  np.testing.assert_array_equal(chain.run(2), expected[1:])
  np.testing.assert_array_equal(chain.first(), expected[0])


def test_no_call_of_a_chain_is_dropped_or_shared():
  one = sets(1)
  lowered = jax.jit(device_time.chained(product)).lower(3 * one)
  assert lowered.as_text().count("optimization_barrier") == 2
  flops = lowered.compile().cost_analysis()["flops"]
  # 2 n^3 of each product; without the barriers XLA would make one of three.
  assert flops == 3 * 2 * 4**3


def test_what_cannot_be_compiled_does_not_stop_the_others():
  tried = []

  def broken(x, y):
    tried.append(x)
    raise ValueError("no such kernel")

  inputs = sets(1)
  found = device_time.compile_all(
    {"broken": Job(broken, inputs, 1), "product": Job(product, inputs, 1)},
    threads=2,
  )
  assert str(found["broken"]) == "no such kernel"
  assert len(tried) == 2  # A second time, alone.
  assert found["product"].calls == 1


class Stub:
  """Takes 1 ms a program and 0.05 ms to be waited for."""

  def __init__(self, name, log, calls):
    self.name, self.log, self.calls = name, log, calls

  def run(self, programs):
    self.log.append((self.name, programs))
    self.log.now += 1e-3 * programs + 5e-5


class Log(list):
  now = 0.0


def test_time_is_that_of_one_call_and_queues_take_turns():
  log = Log()
  queues = {"a": Stub("a", log, 4), "b": Stub("b", log, 1)}
  found = device_time.call_times(
    queues, repeats=2, min_seconds=0.02, clock=lambda: log.now
  )
  # ceil(20 / 1.05) = 20 programs, then ceil(20 / 1.0025) = 20. After these
  # and one warm-up, two timed turns.
  assert [n for _, n in log[:6]] == [1, 1, 20] * 2
  assert log[6:] == [("a", 20), ("b", 20)] * 3
  # (20 ms + 0.05 ms) / 20 programs / 4 calls.
  assert found["a"].median == pytest.approx(20.05 / 80)
  assert found["b"] == pytest.approx([20.05 / 20] * 3)


def test_bad_arguments():
  with pytest.raises(ValueError, match="0 sets of inputs, length=8"):
    Chain(product, [])
  with pytest.raises(ValueError, match="1 sets of inputs, length=0"):
    Chain(product, sets(1), length=0)
  with pytest.raises(ValueError, match="repeats=0"):
    device_time.call_times({}, repeats=0)


def test_busy_is_the_time_of_kernels_on_a_gpu():
  def plane(name, **lines):
    return SimpleNamespace(
      name=name,
      lines=[
        SimpleNamespace(
          name=line, events=[SimpleNamespace(duration_ns=ns) for ns in took]
        )
        for line, took in lines.items()
      ],
    )

  host = plane("/host:CPU", python=[1000.0])
  gpu = plane("/device:GPU:0", **{"Stream #7(Compute)": [5.0, 2.5], "XLA": [9]})
  assert device_time.kernel_nanoseconds([host, gpu]) == 7.5
  assert np.isnan(device_time.kernel_nanoseconds([host]))
