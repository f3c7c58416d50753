import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tanbr_jax import kernels

ROWS, SIZES = 23, [0, 12, 1, 6]  # an empty group, one row, and a tail
D, F = 5, 7

ACTIVATIONS = {
  # The draws below stay under its clamp at 7.
  "clamped_swish": lambda x: x / (1 + np.exp(-1.702 * x)),
  "gelu": lambda x: 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2))),
  "gelu_tanh": lambda x: (
    0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
  ),
  "relu": lambda x: np.maximum(x, 0),
  "relu2": lambda x: np.maximum(x, 0) ** 2,
  "silu": lambda x: x / (1 + np.exp(-x)),
}


def _draw(is_gated, dtype=np.float32):
  rng = np.random.default_rng(0)

  def draw(*shape):
    return rng.normal(size=shape).astype(dtype)

  x, grad = draw(ROWS, D), draw(ROWS, D)
  x[sum(SIZES) :], grad[sum(SIZES) :] = np.nan, np.nan
  w_gate = draw(4, D, F) if is_gated else None
  return x, w_gate, draw(4, D, F), draw(4, F, D), grad


def _loop(x, w_gate, w_in, w_out, activation):
  act, out = ACTIVATIONS[activation], np.zeros(x.shape)
  for row, group in enumerate(np.repeat(np.arange(4), SIZES)):
    hidden = x[row].astype(np.float64) @ w_in[group].astype(np.float64)
    if w_gate is None:
      hidden = act(hidden)
    else:
      hidden = (hidden + (activation == "clamped_swish")) * act(
        x[row].astype(np.float64) @ w_gate[group]
      )
    out[row] = hidden @ w_out[group]
  return out


def _silu_gradients_by_loop(x, w_gate, w_in, w_out, grad):
  """Gradients of sum(out * grad), by the chain rule row by row in float64."""
  x, w_gate, w_in, w_out, grad = (
    np.array(a, np.float64) for a in (x, w_gate, w_in, w_out, grad)
  )
  grads = [np.zeros(a.shape) for a in (x, w_gate, w_in, w_out)]
  for row, e in enumerate(np.repeat(np.arange(4), SIZES)):
    gate, up = x[row] @ w_gate[e], x[row] @ w_in[e]
    sigmoid = 1 / (1 + np.exp(-gate))
    silu, slope = gate * sigmoid, sigmoid * (1 + gate * (1 - sigmoid))
    hidden_grad = w_out[e] @ grad[row]
    gate_grad, up_grad = hidden_grad * up * slope, hidden_grad * silu
    grads[0][row] = w_gate[e] @ gate_grad + w_in[e] @ up_grad
    grads[1][e] += np.outer(x[row], gate_grad)
    grads[2][e] += np.outer(x[row], up_grad)
    grads[3][e] += np.outer(silu * up, grad[row])
  return grads


def _run(x, w_gate, w_in, w_out, grad, **options):
  @jax.jit
  def run(x, w_gate, w_in, w_out, grad):
    out, pullback = jax.vjp(
      lambda x, w_gate, w_in, w_out: kernels.grouped_ffn(
        x, w_in, w_out, jnp.array(SIZES, jnp.int32), w_gate=w_gate, **options
      ),
      *(x, w_gate, w_in, w_out),
    )
    return out, pullback(grad)

  return run(x, w_gate, w_in, w_out, grad)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_a_loop_for_every_activation(activation):
  assert set(kernels.ACTIVATIONS) == set(ACTIVATIONS)
  x, _, w_in, w_out, _ = _draw(is_gated=False)
  out = jax.jit(kernels.grouped_ffn, static_argnames="activation")(
    x, w_in, w_out, np.array(SIZES, np.int32), activation=activation
  )
  expected = _loop(x, None, w_in, w_out, activation)
  # Values up to about 100, sums of seven in float32.
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-5)


def test_gated_values_and_gradients_equal_a_loop():
  *args, grad = _draw(is_gated=True)
  out, grads = _run(*args, grad)
  np.testing.assert_allclose(out, _loop(*args, "silu"), atol=5e-5)
  for got, expected in zip(
    grads, _silu_gradients_by_loop(*args, grad), strict=True
  ):
    # Sums of up to twelve products of values of about 10.
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-4)


def test_bfloat16_equals_a_loop_over_the_same_values():
  *args, grad = _draw(is_gated=True, dtype=jnp.bfloat16)
  out, grads = _run(*args, grad)
  assert {x.dtype for x in (out, *grads)} == {np.dtype(jnp.bfloat16)}
  expected = _loop(*args, "silu")
  # Gate, up, hidden and result are each rounded by 2**-9 of themselves, and
  # the seven terms of a result may cancel.
  results = [out, *grads]
  expected = [expected, *_silu_gradients_by_loop(*args, grad)]
  for result, value in zip(results, expected, strict=True):
    np.testing.assert_allclose(
      np.array(result, np.float64), value, atol=2**-7 * np.abs(value).max()
    )


def test_the_fused_kernel_is_preferred_and_trains(hopper):
  *args, grad = _draw(is_gated=True)
  out, grads = _run(*args, grad)
  assert "grouped_gated_matmul" in hopper
  np.testing.assert_allclose(out, _loop(*args, "silu"), atol=5e-5)
  for got, expected in zip(
    grads, _silu_gradients_by_loop(*args, grad), strict=True
  ):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-4)


def test_the_tail_may_be_left_undefined_and_trains(hopper):
  x, _, w_in, w_out, grad = _draw(is_gated=False)
  options = {"zero_tail": False, "activation": "relu2"}
  out, grads = _run(x, None, w_in, w_out, grad, **options)
  num_rows = sum(SIZES)
  assert np.isnan(out[num_rows:]).all()
  expected = _loop(x, None, w_in, w_out, "relu2")
  np.testing.assert_allclose(
    out[:num_rows], expected[:num_rows], rtol=1e-5, atol=2e-5
  )
  options["implementation"] = "xla"
  _, of_xla = _run(x, None, w_in, w_out, grad, **options)
  for got, same in zip(*map(jax.tree.leaves, (grads, of_xla)), strict=True):
    # The same products, only in other programs.
    np.testing.assert_allclose(got, same, rtol=1e-5, atol=1e-5)


def test_refuses_what_it_cannot_do():
  x, w_gate, w_in, w_out, _ = (jnp.array(a) for a in _draw(is_gated=True))
  sizes = jnp.array(SIZES, jnp.int32)
  with pytest.raises(ValueError, match="one of .*'relu2'.*activation='tanh'"):
    kernels.grouped_ffn(x, w_in, w_out, sizes, activation="tanh")
  with pytest.raises(ValueError, match=r"x float32\(23, 5\).*\(4, 5, 7\)"):
    kernels.grouped_ffn(x, w_in, w_in, sizes)
  with pytest.raises(ValueError, match=r"w_gate float32\(3, 5, 7\)"):
    kernels.grouped_ffn(x, w_in, w_out, sizes, w_gate=w_gate[1:])
  with pytest.raises(ValueError, match=r"w_out bfloat16"):
    kernels.grouped_ffn(x, w_in, w_out.astype(jnp.bfloat16), sizes)
  with pytest.raises(ValueError, match=r"group_sizes float32\(4,\)"):
    kernels.grouped_ffn(x, w_in, w_out, sizes.astype(jnp.float32))
  with pytest.raises(ValueError, match="one of .*'xla'.*'triton'"):
    kernels.grouped_ffn(x, w_in, w_out, sizes, implementation="triton")
  for name in ("mosaic_gpu", "mosaic_tpu"):
    with pytest.raises(ValueError, match=f"'{name}' cannot run: .* is a cpu"):
      kernels.grouped_ffn(x, w_in, w_out, sizes, implementation=name)
