import dataclasses

import pytest

from tanbr_jax import models


@pytest.mark.parametrize(
  ("name", "billions"),
  # Parameters of the experts, by hand: L * E * matrices * D * F.
  [
    ("mixtral_8x7b", 32 * 8 * 3 * 4096 * 14336 / 1e9),
    ("olmoe_1b_7b", 16 * 64 * 3 * 2048 * 1024 / 1e9),
    ("qwen3_30b_a3b", 48 * 128 * 3 * 2048 * 768 / 1e9),
    ("t5_base_x8", 24 * 8 * 2 * 768 * 3072 / 1e9),
  ],
)
def test_presets_have_the_experts_of_their_models(name, billions):
  config = models.preset(name)
  one = (2 + config.is_gated) * config.model_dim * config.expert_dim
  found = config.num_layers * config.num_experts * one / 1e9
  assert found == pytest.approx(billions)


def test_a_preset_can_be_cut_and_retyped():
  config = models.preset("mixtral_8x7b", num_layers=8, dtype="float32")
  whole = models.preset("mixtral_8x7b")
  assert dataclasses.replace(config, num_layers=32, dtype="bfloat16") == whole


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_layers": 0}, "num_layers must be at least 1, got num_layers=0"),
    ({"num_experts": 0}, "num_experts=0"),
    ({"shared_dim": 0}, "shared_dim=0"),
    ({"num_selected": 5}, "num_selected=5, num_experts=4"),
    ({"num_kv_heads": 3}, "num_heads=4, num_kv_heads=3"),
    ({"head_dim": 7}, "head_dim=7"),
    ({"norm_eps": -1e-5}, "norm_eps=-1e-05"),
    ({"activation": "swish"}, "activation='swish'"),
    ({"dtype": "float64"}, "dtype='float64'"),
    ({"norm": "batch"}, "norm='batch'"),
    ({"norm_place": "within"}, "norm_place='within'"),
    ({"dense_layers": (2,), "dense_dim": 8}, r"dense_layers=\(2,\)"),
    ({"dense_dim": 8}, r"dense_layers=\(\), dense_dim=8"),
    ({"has_shared_gate": True, "shared_dim": None}, "needs a shared_dim"),
    ({"rotary": models.RotaryOptions(dim=10)}, "rotary.dim=10, head_dim=8"),
    ({"heads": 4}, "no field 'heads'"),
  ],
)
def test_refuses_shapes_that_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    models.preset("tiny", **changes)


@pytest.mark.parametrize(
  ("options", "changes", "message"),
  [
    (models.RotaryOptions, {"theta": 0.0}, "theta=0.0"),
    (models.RotaryOptions, {"dim": 3}, "dim=3"),
    (models.RouterOptions, {"scores": "tanh"}, "scores='tanh'"),
    (models.AttentionOptions, {"query_key_norm": "all"}, "norm='all'"),
    (models.AttentionOptions, {"window": 0}, "window=0"),
  ],
)
def test_refuses_options_that_cannot_be(options, changes, message):
  with pytest.raises(ValueError, match=message):
    options(**changes)


def test_refuses_an_unknown_preset():
  with pytest.raises(ValueError, match="got preset='mixtral'"):
    models.preset("mixtral")
