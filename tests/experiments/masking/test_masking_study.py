import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_pretraining

from configs.masking import gpu, quick
from experiments.masking import rivals, settings, timing
from experiments.masking.evaluate import evaluate
from tanbr_jax import masking, models

pytestmark = pytest.mark.slow

MODEL = tiny_pretraining.CONFIG.make_model()  # one layer, 2 of 3 experts


def make_config(**fields):
  config = quick.get_config()
  config.update(fields)
  return config


def test_an_evaluation_is_its_windows_one_by_one():
  """Every window alone, and the steps of two windows written out."""
  params = MODEL.init(jax.random.key(0))
  windows = tiny_pretraining.windows("test", 4)  # [3, 4, 9]
  router = {"kernel": jax.random.normal(jax.random.key(1), (1, 16, 3))}
  found = evaluate(
    MODEL, params, windows, batch_size=2, reroute=masking.beam(router)
  )
  run = jax.jit(
    lambda ids: MODEL.apply(
      params,
      ids,
      reroute=masking.beam(router),
      observe=jax.tree_util.Partial(lambda layer, output: layer.routing),
    )
  )
  ids = np.asarray(windows, np.int32)
  logits, routing = run(jnp.asarray(ids[..., :-1].reshape(12, 8)))
  likeliest = np.argmax(logits, axis=-1).reshape(3, 4, 8)
  np.testing.assert_allclose(
    found.accuracy, (likeliest == ids[..., 1:]).mean((1, 2)), rtol=1e-6
  )
  chosen = np.asarray(routing.expert_ids[0]).reshape(3, 4, 8, 2)
  is_on = chosen >= 0
  np.testing.assert_allclose(
    found.active, is_on.sum(-1).mean((1, 2)), rtol=1e-6
  )
  np.testing.assert_allclose(
    found.active_by_rank[0], is_on.mean((0, 1, 2)), rtol=1e-6
  )
  # Batches of two take the first windows of tasks 0 and 1, then those of task 2
  # and the second of task 0, and so on.
  mixed = chosen.swapaxes(0, 1).reshape(6, 2, 8, 2)
  distinct = [
    len(set(mixed[batch, :, step].ravel()) - {-1})
    for batch in range(6)
    for step in range(8)
  ]
  assert found.distinct[0] == pytest.approx(np.mean(distinct))
  load = np.array([(chosen == e).sum() for e in range(3)])
  np.testing.assert_allclose(found.load[0], load / load.sum(), rtol=1e-6)
  assert found.count_by_token.sum() == 3 * 4 * 8
  assert found.active_by_token.sum() == pytest.approx(is_on.sum())


def test_every_rival_of_the_configs_can_be_made():
  found = settings.read(gpu.get_config())
  assert {entry["method"] for entry in found.free.values()} == {*rivals.METHODS}
  config = found.source.config
  model = models.ByteLM(
    models.ByteLMConfig(
      num_layers=1,
      model_dim=4,
      num_heads=1,
      head_dim=4,
      expert_dim=4,
      num_experts=config.num_experts,
      num_selected=config.num_selected,
      context=8,
    )
  )
  params = model.init(jax.random.key(0))
  ids = jnp.zeros((1, 8), jnp.int32)
  made = rivals.Calibrated(model, params, ids, after=None, num_steps=8)
  for options in found.free.values():
    if not options.get("matches", False):
      assert len(made.make(options).args) == 1


def test_a_layer_with_masks_has_their_share_of_pairs():
  shape = models.preset("tiny", num_layers=1, model_dim=64)
  given = timing.LayerSettings(
    models=["tiny"],
    dtype="float32",
    num_tokens=(512,),
    shares=(1.0, 0.15, 0.0),
    num_own=1,
    repeats=1,
    min_ms=0.0,
    calls=1,
    least_tokens=1,
  )
  forms = timing._forms(given, shape)
  params = timing._experts(shape)
  x = timing._tokens(shape, 512, 0)
  count = jax.jit(functools.partial(timing._counted, shape))
  pairs = {
    name: float(count(params, x, forms[name])[0])
    for name in ("100 % of pairs", "15 % of pairs", "0 % of pairs")
  }
  assert pairs["100 % of pairs"] == 1024 and pairs["0 % of pairs"] == 0
  # Four experts' offsets move together: draws of about .15 +- .03 each.
  assert pairs["15 % of pairs"] == pytest.approx(0.15 * 1024, rel=0.4)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"test_windows": 33}, "got test_windows=33, batch_size=16"),
    (
      {"tuned": {"control": {"method": "beam"}}},
      "tuned.control must have method='none', got method='beam'",
    ),
    ({"scored": "train"}, "got scored='train'"),
    ({"tuned": {"control": {"betta": 1}}}, "did you mean 'beta'"),
    ({"free": {"a": {"method": "top_q", "on": "full"}}}, "mean 'top_p'"),
    ({"free": {"a": {"method": "top_p", "on": "nowhere"}}}, "on='nowhere'"),
    (
      {"free": {"a": {"method": "top_p", "on": "full", "treshold": 0.5}}},
      "did you mean 'threshold'",
    ),
  ],
)
def test_refuses_a_config_before_any_work(fields, message):
  with pytest.raises(ValueError, match=message) as error:
    settings.read(make_config(**fields))
  assert "\n" not in str(error.value)
