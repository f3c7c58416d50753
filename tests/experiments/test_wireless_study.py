import dataclasses
import json

import numpy as np
import pytest

from configs.wireless import quick, top1
from experiments.common import readme_block
from experiments.wireless import (
  block,
  decisions,
  figures,
  radio,
  settings,
  slots,
  subcarriers,
)
from tanbr_jax import models
from tanbr_jax.wireless import layer_energy

R = 4


def point(loss, energy):
  loss, energy = np.broadcast_to(loss, R), np.broadcast_to(energy, R)
  return {
    "loss": loss.astype(float),
    "accuracy": 1 - loss / 4,
    "energy_j": energy.astype(float),
    "dropped": np.zeros(R),
  }


def arrays_of(points):
  return {
    f"{name}:{field}": values
    for name, one in points.items()
    for field, values in one.items()
  }


@pytest.fixture
def arrays():
  spread = np.array([-0.1, 0.0, 0.0, 0.1])
  found = arrays_of(
    {
      "curve/siftmoe/0": point(1.0, 10.0),
      "curve/siftmoe/0.2": point(1.1, 5.0 + spread * 10),
      "curve/siftmoe/0.5": point(1.5, 2.0),
      "curve/practical_top_k/0": point(1.1 + spread, 10.0),
      "curve/ideal_top_k/0": point(1.0, np.inf),
      "curve/wdmoe/0.5": point(1.2, 4.0),
      "curve/wdmoe/1": point(1.6, 2.0),
    }
  )
  for link in ("bandwidth_hz", "deadline_s"):
    for value in (1, 2):
      for policy in ("siftmoe", "practical_top_k"):
        found |= arrays_of({f"link/{link}/{policy}/{value}": point(1.0, value)})
  rng = np.random.default_rng(0)
  measured = rng.uniform(0, 1, (2, 50))
  return found | {
    "fast/2/1:ratio": np.full(R, 0.8),
    "slots/siftmoe/fixed:reward": rng.uniform(size=(2, 30)),
    "slots/merging/tanbr:reward": rng.uniform(size=(2, 30)),
    "bound:measured": measured,
    "bound:bound": measured + 0.1,
    "bound:estimate_mean": measured,
    "bound:predicted": np.ones(8),
    "bound:propagated": np.full(8, 0.5),
  }


def test_headline_numbers_by_hand(arrays):
  found = figures.headline(arrays)
  # The curve's energies are 2, 5 and 10 at losses of 1.5, 1.1 and 1; practical
  # top-K takes 10 for 1.1 in the mean, hence half is saved; a thousandth of a
  # nat is a tie and 3 / 400 of energy.
  assert found["saved/at_practical_loss"] == pytest.approx(0.50075)
  low, high = (found[f"saved/at_practical_loss_{e}"] for e in ("low", "high"))
  # Realisations in which practical top-K is worse are those in which the curve
  # takes more, so that little lies above.
  assert 0.0 <= low < 0.5 and high == pytest.approx(0.5, abs=0.05)
  # A loss of 1.111 is 11 / 400 of the way to (2, 1.5).
  key = "saved/at_practical_loss_less_a_hundredth"
  assert found[key] == pytest.approx(1 - (5 - 33 / 400) / 10)
  # A loss of 1.2 is a quarter of the way from (5, 1.1) to (2, 1.5): an energy
  # of 4.25, above wdmoe's 4; in no resample less than 4. And (1.6, 2) is
  # matched by (1.5, 2), accuracies being losses.
  for quality in ("loss", "accuracy"):
    assert found[f"dominance/{quality}/practical_top_k_not_at"] == "none"
    assert found[f"dominance/{quality}/wdmoe_not_at"].split()[0] == "0.5"
    assert found[f"dominance/{quality}/points"] == 3
    assert found[f"dominance/{quality}/beaten"] == 2


def test_a_curve_that_never_is_as_good_saves_nothing(arrays):
  better = arrays | arrays_of({"curve/practical_top_k/0": point(0.9, 10.0)})
  found = figures.headline(better)
  # Ten times the energy more stands for none.
  assert found["saved/at_practical_accuracy"] == -10.0
  assert found["dominance/accuracy/practical_top_k_not_at"] == "0 clearly"


def test_figures_are_drawn_from_the_arrays_alone(arrays, tmp_path):
  drawn = figures.draw(tmp_path, arrays)
  names = {"curve.png", "links.png", "fast.png", "bounds.png", "slots.png"}
  assert {figure.file for figure in drawn} == names
  assert {path.name for path in tmp_path.iterdir()} == names


def test_the_readme_block_shows_what_was_found(arrays):
  summary = figures.headline(arrays) | {
    "curve/wdmoe/0.5/loss": 1.2,
    "curve/wdmoe/0.5/loss_low": 1.1,
    "curve/wdmoe/0.5/loss_high": 1.3,
    "fast/2/1/expected_ratio": 0.81,
  }
  made = block.text(
    {
      "summary": json.loads(json.dumps(summary)),
      "realisations": R,
      "windows": 1,
      "device": "cpu x1",
      "jax": "0",
    }
  )
  assert "accuracy SiftMoE's curve saves 0.5" in made
  assert "2 of the 3 points of the others by loss; not: wdmoe at 0.5" in made
  assert "| wdmoe | 0.5 | 1.200 [1.100, 1.300] | - | - | - |" in made


@pytest.mark.parametrize("name", block.NAMES)
def test_the_readme_holds_what_is_kept(name):
  kept = json.loads((block.HERE / f"{name}.json").read_text())
  readme = (block.HERE / "README.md").read_text()
  assert readme_block.block(readme, name) == block.text(kept)
  for figure in block.FIGURES[name]:
    assert f"({name}_{figure}.png)" in readme


def test_realisations_are_those_of_the_library():
  read = settings.read(quick.get_config())
  model = models.ByteLM(
    models.ByteLMConfig(num_layers=2, model_dim=8, num_experts=3)
  )
  found = radio.realise(read.radio, model, seed=3, realisations=4, tokens=5)
  gains = radio.draw_gains(
    read.radio, seed=3, realisations=4, layers=2, experts=3
  )
  nodes = radio.make_nodes(read.radio, 3)
  link = radio.make_link(read.radio, model)
  assert link.state_bits == 8 * 16
  for layer in range(2):
    for index in range(4):
      expected = layer_energy.layer_costs(
        nodes, link, gain=gains[index, layer], most_states=10
      )
      np.testing.assert_array_equal(
        found.costs[layer][index].energy_j, expected.energy_j
      )
  twice = found.repeated(2)
  np.testing.assert_array_equal(twice.marginal_j[:, 1::2], found.marginal_j)
  # Fades are drawn for every layer, places for every realisation.
  assert np.unique(gains).size == gains.size


@pytest.fixture(scope="module")
def read():
  """Settings of four realisations, of three experts two a token."""
  config = quick.get_config()
  config.sweep.realisations = R
  return settings.read(config)


@pytest.fixture(scope="module")
def model():
  return models.ByteLM(
    models.ByteLMConfig(num_layers=2, model_dim=8, num_experts=3)
  )


def test_experts_take_the_gains_of_their_subcarriers(read, model):
  sizes = {"seed": 3, "realisations": R}
  carriers = np.tile([2, 0, 1], (R, 2, 1))
  moved, own = (
    radio.realise(read.radio, model, tokens=5, carriers=which, **sizes)
    for which in (carriers, None)
  )
  gains = radio.draw_carriers(read.radio, layers=2, experts=3, **sizes)
  nodes = radio.make_nodes(read.radio, 3)
  link = radio.make_link(read.radio, model)
  for index, layer in np.ndindex(R, 2):
    for found, places in ((moved, [2, 0, 1]), (own, [0, 1, 2])):
      expected = layer_energy.layer_costs(
        nodes,
        link,
        gain=gains[index, layer, [0, 1, 2], places],
        most_states=10,
      )
      np.testing.assert_array_equal(
        found.costs[layer][index].energy_j, expected.energy_j
      )


def test_jesa_s_subcarriers_take_less_than_the_experts_own(read, model):
  rng = np.random.default_rng(0)
  scores = rng.dirichlet(np.ones(3), (2, R * 6))
  scores /= 1 - scores.min(axis=2, keepdims=True)  # of the two largest
  carriers = subcarriers.assign(read, model, scores, quality=0.9)
  np.testing.assert_array_equal(
    np.sort(carriers, axis=2), np.tile(np.arange(3), (R, 2, 1))
  )
  sizes = {"seed": read.seed, "realisations": R, "tokens": 5}
  moved, own = (
    radio.realise(read.radio, model, carriers=which, **sizes).marginal_j
    for which in (carriers, None)
  )
  # A state at every helper; expert 0 is the user's and takes no radio.
  assert moved[..., 1:, 0].sum() < own[..., 1:, 0].sum()
  # No two reach more than all that there is: experts keep their own.
  kept = subcarriers.assign(read, model, scores, quality=2.0)
  np.testing.assert_array_equal(kept, np.tile(np.arange(3), (R, 2, 1)))


def test_even_budgets_go_from_none_to_all():
  found = slots.even_budgets(2)
  assert found.shape == (11, 3)
  np.testing.assert_allclose(found[3], [0.15, 0.15, 0.7], atol=1e-6)
  np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)


def test_the_drawn_layers_are_decided_with_their_gap():
  read = settings.read(quick.get_config())
  layers = [
    decisions.drawn_layer(np.random.default_rng(0), read, *shape, tokens=12)
    for shape in decisions.DRAWN[:2]
  ]
  exact, priced = (decisions.timed("", [layer]) for layer in layers)
  assert (exact["method"], exact["mean_gap"]) == ("paths", 0.0)
  assert priced["method"] == "priced" and 0 <= priced["mean_gap"] < 0.5
  assert decisions.proven_gap(layers[0], most_seconds=5.0) < 1e-5


@pytest.mark.parametrize(
  ("section", "field", "value", "message"),
  [
    ("radio", "bandwidth_hz", 0.0, "bandwidth_hz must be positive, got"),
    ("radio", "deadline_s", -1.0, "deadline_s must be"),
    ("radio", "fading_shape", 1.0, "fading_shape must be above 1"),
    ("sweep", "budget_shares", (-0.1,), "budget_shares must be at least 0"),
    ("sweep", "realisations", 1, "realisations must be"),
    ("knobs", "wdmoe", (-1.0,), "knobs.wdmoe must be at least 0"),
    ("knobs", "wdmo", (1.0,), "unknown policy 'wdmo', did you mean 'wdmoe'"),
  ],
)
def test_bad_configs_are_refused_in_one_line(section, field, value, message):
  config = top1.get_config().unlock()
  config[section][field] = value
  with pytest.raises(ValueError, match=message) as error:
    settings.read(config)
  assert "\n" not in str(error.value)


def test_factors_scale_the_radio():
  read = settings.read(quick.get_config()).radio
  found = radio.scaled(read, bandwidth_hz=0.5)
  assert found == dataclasses.replace(read, bandwidth_hz=read.bandwidth_hz / 2)
