import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tanbr_jax.training import loop


def _quadratic(target, params, key):
  # The noise makes the result depend on every step's key.
  noise = 0.1 * jax.random.normal(key, target.shape)
  return jnp.sum(jnp.square(params["w"] - target - noise))


def _linear(params, key):
  del key
  return jnp.sum(params["w"])


def _fails_at_three(params, key):
  del key
  # params["w"] counts the steps: its gradient is -1 and the rate is 1.
  return jnp.where(params["w"] > 2.5, jnp.nan, -params["w"])


def _loss():
  return jax.tree_util.Partial(_quadratic, jnp.array([1.0, -2.0]))


def _train(num_steps, path=None, **kwargs):
  settings = dict(
    optimiser=optax.adam(0.05), seed=3, progress=False, check_every=7
  )
  return loop.train(
    [_loss()],
    {"w": jnp.zeros(2)},
    num_steps=num_steps,
    checkpoint_dir=path,
    **(settings | kwargs),
  )


def test_equals_steps_written_out_by_hand():
  # Plain gradient descent in NumPy with the same keys.
  w = np.zeros(2)
  for step in range(5):
    key = jax.random.fold_in(jax.random.key(3), step)
    noise = 0.1 * np.array(jax.random.normal(key, (2,)), np.float64)
    w -= 0.1 * 2 * (w - np.array([1.0, -2.0]) - noise)
  trained = _train(5, optimiser=optax.sgd(0.1))
  np.testing.assert_allclose(trained["w"], w, rtol=1e-5)


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
  whole = _train(12, tmp_path / "whole", checkpoint_every=4)
  # Step 9 dies: the last whole checkpoint is that of step 8.
  calls = []

  def choose(step):
    calls.append(step)
    if len(calls) == 10:
      raise KeyboardInterrupt
    return 0

  with pytest.raises(KeyboardInterrupt):
    _train(12, tmp_path / "killed", checkpoint_every=4, choose=choose)
  resumed = []
  again = _train(
    12,
    tmp_path / "killed",
    checkpoint_every=4,
    choose=lambda step: resumed.append(step) or 0,
  )
  assert resumed == [8, 9, 10, 11]
  np.testing.assert_array_equal(again["w"], whole["w"])


def _with_figures(params, key):
  del key
  return jnp.sum(params["w"] ** 2), {"active": jnp.sum(params["w"]) + 3}


def test_figures_beside_the_loss_are_shown_and_change_nothing(capsys):
  loss = jax.tree_util.Partial(_with_figures)
  trained = loop.train(
    [loss], {"w": jnp.ones(2)}, optimiser=optax.sgd(0.25), num_steps=2, seed=0
  )
  # Halved twice: losses 2 and .5, figures 5 and 4.
  np.testing.assert_allclose(trained["w"], 0.25, rtol=1e-6)
  assert "loss 1.250, active 4.500" in capsys.readouterr().err


def test_losses_take_turns_as_chosen():
  # The linear loss moves both weights by -1 in each of its two steps.
  trained = loop.train(
    [jax.tree_util.Partial(_fails_at_three), jax.tree_util.Partial(_linear)],
    {"w": jnp.float32(0.0)},
    optimiser=optax.sgd(1.0),
    num_steps=5,
    seed=0,
    choose=lambda step: int(step in (1, 3)),
    progress=False,
  )
  # Up, down, up, down, up.
  assert float(trained["w"]) == 1.0


def test_a_loss_that_is_not_finite_names_step_and_value():
  with pytest.raises(ValueError, match="demo: .* got nan at step 3"):
    loop.train(
      [jax.tree_util.Partial(_fails_at_three)],
      {"w": jnp.float32(0.0)},
      optimiser=optax.sgd(1.0),
      num_steps=9,
      seed=0,
      progress=False,
      name="demo",
    )


def test_saved_arrays_come_back(tmp_path):
  tree = {"a": jnp.arange(3.0), "b": {"c": jnp.ones((2, 2), jnp.bfloat16)}}
  loop.save(tmp_path / "tree", tree)
  loaded = loop.load(tmp_path / "tree", jax.eval_shape(lambda: tree))
  jax.tree.map(np.testing.assert_array_equal, loaded, tree)


def test_decay_spares_vectors_and_schedule_is_checked():
  assert loop.is_matrix({"a": jnp.ones(2), "b": jnp.ones((2, 2))}) == {
    "a": False,
    "b": True,
  }
  with pytest.raises(ValueError, match="warmup_steps=9, num_steps=9"):
    loop.adamw(learning_rate=1.0, num_steps=9, warmup_steps=9)


@pytest.fixture
def told(monkeypatch):
  lines = []
  monkeypatch.setattr(
    loop.logging, "warning", lambda text, *args: lines.append(text % args)
  )
  return lines


def test_a_damaged_checkpoint_is_left_out(tmp_path, told):
  """Each file of the last of two, cut and with a flipped bit."""
  whole = _train(12, tmp_path / "whole", checkpoint_every=4)
  whole_folder = tmp_path / "whole"
  assert sorted(os.listdir(whole_folder)) == ["12", "12.json", "8", "8.json"]
  files = [x for x in (whole_folder / "12").rglob("*") if x.is_file()]
  files = [x.relative_to(whole_folder) for x in files[:5]] + ["12.json"]
  rng = np.random.default_rng(0)
  for number, file in enumerate(files):
    folder = tmp_path / "damaged"
    shutil.copytree(whole_folder, folder)
    path = folder / file
    content = bytearray(path.read_bytes())
    if number % 2 and content:  # an empty file has no bit
      content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    else:
      content = content[: len(content) // 2] or b"x"
    path.write_bytes(content)
    told.clear()
    resumed = []
    again = _train(
      12,
      folder,
      checkpoint_every=4,
      choose=lambda step, resumed=resumed: resumed.append(step) or 0,
    )
    np.testing.assert_array_equal(again["w"], whole["w"])
    line = f"{folder / '12'} is damaged: the training goes on without it"
    assert (told, resumed) == ([line], [8, 9, 10, 11]), file
    shutil.rmtree(folder)


def test_checkpoints_of_another_training_are_refused_and_stay(tmp_path, told):
  _train(4, tmp_path / "a")
  for change, message in (
    ({"seed": 4}, "another training: seed=3 there, 4 here"),
    ({"name": "x"}, "another training: name='training' there, 'x' here"),
    ({"optimiser": optax.sgd(0.1)}, "another training: structure='"),
  ):
    with pytest.raises(ValueError, match=message):
      _train(4, tmp_path / "a", **change)
  with jax.threefry_partitionable(False):
    with pytest.raises(ValueError, match="numerics.*=True there, False here"):
      _train(4, tmp_path / "a")
  assert (tmp_path / "a" / "4").exists() and told == []


def test_saved_arrays_that_were_damaged_are_refused(tmp_path):
  tree = {"a": jnp.arange(3.0), "b": jnp.ones((64, 64), jnp.bfloat16)}
  like, path = jax.eval_shape(lambda: tree), tmp_path / "tree"
  checksum = loop.save(path, tree)
  loop.load(path, like, checksum=checksum)
  with pytest.raises(ValueError, match="its checksum differs"):
    loop.load(path, like, checksum="0" * 16)
  for file in [x for x in path.rglob("*") if x.is_file()]:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] or b"x")
    with pytest.raises(ValueError, match="tree cannot be read .its checksum"):
      loop.load(path, like, checksum=checksum)
    file.write_bytes(content)
  with pytest.raises(ValueError, match="cannot be read"):
    loop.load(tmp_path / "absent", like)


def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
  def full(*unused, **unused_too):
    raise ValueError("RESOURCE_EXHAUSTED: No space left\non the device")

  monkeypatch.setattr(loop.ocp.StandardCheckpointer, "save", full)
  with pytest.raises(OSError, match="No space left") as error:
    loop.save(tmp_path / "tree", {"a": jnp.ones(3)})
  assert error.value.filename == str(tmp_path / "tree")
  assert "\n" not in str(error.value)
