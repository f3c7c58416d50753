import jax
import jax.numpy as jnp
import pytest

from tanbr_jax import models
from tanbr_jax.models import decoder_init

CONFIG = models.preset("tiny")


def test_values_keep_the_variance_and_experts_differ():
  key = jax.random.key(0)
  stack = decoder_init.init_layer(key, CONFIG)["experts"]["stack"]
  table = decoder_init.init_table(key, (64, 16), "float32")
  assert stack.w_in.shape == (4, 16, 24)
  # The deviation of n draws is known within 4 / sqrt(2 n), here 7 and 9 %.
  assert float(jnp.std(stack.w_in)) == pytest.approx(0.25, rel=0.07)
  assert float(jnp.std(table)) == pytest.approx(0.25, rel=0.09)
  # Experts are independent: the mean of 384 products of unit draws.
  products = stack.w_in[0] * stack.w_in[1] * 16
  assert abs(float(jnp.mean(products))) < 4 / 384**0.5


def test_no_expert_is_kept_in_float32():
  config = models.preset("tiny", num_experts=64, dtype="bfloat16")
  key = jax.random.key(0)
  plan = decoder_init.init_layer.lower(key, config).compile().memory_analysis()
  # 64 experts of three 16 x 24 bfloat16 matrices: half of their float32 form.
  assert plan.temp_size_in_bytes < 64 * 3 * 16 * 24 * 2
