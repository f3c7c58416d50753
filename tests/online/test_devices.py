"""Seeds on the devices of one process; `play_on_devices` plays them."""

import jax
import numpy as np
import play_on_devices
import pytest
import toy
from subprocesses import start

from tanbr_jax.online import rollout, trace
from tanbr_jax.online.placement import Placement, place

pytestmark = pytest.mark.slow


def play(folder, *bandits):
  # As users compile: with most of XLA's passes left out, a program for several
  # devices is fused in another way than that for one.
  optimised = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
  process = start("play_on_devices.py", folder, *bandits, **optimised)
  output, _ = process.communicate(timeout=900)
  assert process.returncode == 0, output
  return trace.load(folder / "traces.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def played(folder):
  return play(folder)


def assert_same_bits(actual, expected):
  actual, expected = trace.to_arrays(actual), trace.to_arrays(expected)
  assert actual.keys() == expected.keys()
  for name in actual.keys() - {"seconds"}:
    assert actual[name].dtype == expected[name].dtype, name
    assert actual[name].shape == expected[name].shape, name
    assert actual[name].tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize(
  "devices", ["vmap 3", "vmap 4", "vmap square", "map 4"]
)
def test_devices_do_not_change_a_bit(played, devices):
  """Five seeds on three and four devices, which do not divide them."""
  alone = f"{devices.split()[0]} without"
  assert_same_bits(played[devices], played[alone])


def test_the_devices_play_what_this_process_plays(played):
  here = play_on_devices.play()
  ours = played["vmap 4"]
  np.testing.assert_array_equal(ours.seeds, here.seeds)
  np.testing.assert_array_equal(ours.task_count, here.task_count)
  # Another number of threads, hence another program: a few roundings.
  np.testing.assert_allclose(ours.merge_weights, here.merge_weights, atol=1e-5)


def test_a_run_goes_on_with_any_number_of_devices(played):
  """Two devices, then three from chunk 2 on, then none at all."""
  assert_same_bits(played["vmap resumed"], played["vmap without"])
  # A chunk that compiles has no time: the third was the first of the resume.
  seconds = played["vmap resumed"].seconds
  np.testing.assert_array_equal(np.isnan(seconds), [True, False, True, False])
  assert_same_bits(played["vmap read"], played["vmap resumed"])


def test_the_points_of_a_grid_are_shared_among_the_devices(played, folder):
  del played  # it has written them
  alone, shared = np.load(folder / "points.npy")
  assert alone.shape == (5, 2) and len(np.unique(alone)) == 10
  # Other numbers of points in a program: a few roundings of a sum of 9.
  np.testing.assert_allclose(shared, alone, rtol=1e-5)
  # The second point by itself, seeds 3 and 4.
  one = rollout.run(
    toy.bandit(0.2),
    toy.environment(),
    num_rounds=9,
    seeds=(3, 4),
    progress=False,
  )
  gaps = one.optimal_reward - one.expected_reward
  np.testing.assert_allclose(shared[1], gaps.sum(axis=1), rtol=1e-5)


@pytest.mark.slow  # compiles two bandits twice, with all optimisations
def test_bandits_play_the_same_on_four_devices(tmp_path):
  """A model with an ascent and a tree; one with none of them."""
  names = ("tanbr", "lin_ucb")
  found = play(tmp_path, *names)
  for name in names:
    assert_same_bits(found[f"{name} 4"], found[f"{name} 1"])


class Device:
  """A device of a process, as a mesh needs it to be shared."""

  def __init__(self, process_index):
    self.process_index = process_index


class Mesh:
  def __init__(self, *owners):
    self.devices = np.array([Device(owner) for owner in owners])


@pytest.mark.parametrize(
  "index, owners, rows",
  [
    (0, (0, 0, 1, 1), slice(0, 2)),
    (1, (0, 0, 1, 1), slice(2, 5)),
    (0, (0, 1, 1, 1), slice(0, 1)),
    (1, (0, 1, 1, 1), slice(1, 5)),
  ],
)
def test_processes_share_the_seeds_by_their_devices(
  index, owners, rows, monkeypatch
):
  """Five seeds; process p gets those below 5 (devices up to p) / devices."""
  monkeypatch.setattr(jax, "process_index", lambda: index)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(jax.sharding, "Mesh", lambda devices, axis: len(devices))
  found = place(5, Mesh(*owners))
  assert found == Placement(rows, 2, owners.count(index))


@pytest.mark.parametrize(
  "num_seeds, owners, message",
  [
    (5, (0, 1, 1), r"or of all processes, got \[1, 2, 0\] devices by process"),
    (2, (0, 1, 2), "for each process, got 2 seeds, 3 processes"),
  ],
)
def test_a_mesh_that_cannot_share_is_refused(
  num_seeds, owners, message, monkeypatch
):
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  monkeypatch.setattr(jax.sharding, "Mesh", lambda devices, axis: len(devices))
  with pytest.raises(ValueError, match=message):
    place(num_seeds, Mesh(*owners))


def test_a_device_that_fails_ends_the_run_in_one_line(monkeypatch, tmp_path):
  """As with no memory left, or a device that is gone."""

  def fail(*args, **kwargs):
    raise jax.errors.JaxRuntimeError("INTERNAL: device 1\n is lost")

  monkeypatch.setattr(rollout.rounds, "play", fail)
  with pytest.raises(ValueError) as error:
    play_on_devices.play(workdir=tmp_path)
  message = "the devices failed in rounds 0 to 5: INTERNAL: device 1 is lost"
  assert str(error.value) == message
  assert not list(tmp_path.rglob("*.npz"))
