import pytest

from tanbr_jax.timing import latency


def test_functions_take_turns_and_warm_up_is_not_timed():
  now, calls = 0.0, []

  def take(name, seconds):
    def function():
      nonlocal now
      calls.append(name)
      now += next(seconds)

    return function

  functions = {
    # The first call of each, which compiles, is long.
    "a": take("a", iter([9.0, 1.0, 2.0, 3.0])),
    "b": take("b", iter([9.0, 0.5, 0.5, 0.5])),
  }
  found = latency.wall_times(functions, repeats=3, warmup=1, clock=lambda: now)
  assert calls == ["a", "b"] * 4
  # Quartiles of 1, 2, 3 seconds by linear interpolation, in milliseconds.
  assert found["a"] == pytest.approx((2000.0, 1500.0, 2500.0))
  assert found["b"] == pytest.approx((500.0, 500.0, 500.0))


def test_repeats_must_be_positive():
  with pytest.raises(ValueError, match="repeats=0, warmup=3"):
    latency.wall_times({}, repeats=0)
