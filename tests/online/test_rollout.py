import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.tree_util import Partial

from tanbr_jax import monitor
from tanbr_jax.bandits.base import Bandit
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.environments.base import Environment
from tanbr_jax.online import rollout, rounds, trace

RUN = {"num_rounds": 23, "seeds": (3, 7), "chunk_size": 6, "progress": False}

# Forks a process for each case, which plays the same run and kills itself at
# its n-th call of os.replace (a chunk calls it twice: trace, then carry):
# before it, after it, or with half of the new file, "line" with half of a line
# of metrics too. Forking is safe here because no computation has started any
# thread yet. One after the other, so that only the first one compiles.
KILLED = """
import os, signal, sys
import toy
from tanbr_jax import rollout

def main(workdir, when, nth):
  calls, replace = 0, os.replace
  def killer(source, target):
    nonlocal calls
    calls += 1
    if calls == nth and when in ("half", "line"):
      os.truncate(source, os.path.getsize(source) // 2)
    if calls == nth and when == "line":
      with open(os.path.join(workdir, "metrics.jsonl"), "a") as file:
        file.write('{"run": "tanbr", "chu')
    if calls == nth and when != "after":
      os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if calls == nth:
      os.kill(os.getpid(), signal.SIGKILL)
  os.replace = killer
  rollout.run(toy.bandit(), toy.environment(), num_rounds=23, seeds=(3, 7),
              chunk_size=6, progress=False, workdir=workdir)

for case in sys.argv[1:]:
  workdir, when, nth = case.split(":")
  child = os.fork()
  if child == 0:
    try:
      main(workdir, when, int(nth))
    finally:
      os._exit(1)
  assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""
# Call 3 is the trace of chunk 1, call 4 its carry.
KILLS = [
  ("before", 1),
  ("half", 3),
  ("line", 4),
  ("after", 4),
]


@pytest.fixture(scope="module")
def whole():
  return rollout.run(toy.bandit(), toy.environment(), **RUN)


@pytest.fixture(scope="module")
def killed_workdirs(tmp_path_factory):
  here = Path(__file__).parents[1]
  env = dict(os.environ, JAX_PLATFORMS="cpu")
  env["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent)])
  folders = [tmp_path_factory.mktemp(f"{when}{nth}") for when, nth in KILLS]
  cases = [
    f"{folder}:{when}:{nth}"
    for folder, (when, nth) in zip(folders, KILLS, strict=True)
  ]
  command = [sys.executable, "-c", KILLED, *cases]
  subprocess.run(command, env=env, check=True, timeout=200)
  return folders


def assert_same_bits(actual, expected):
  actual, expected = trace.to_arrays(actual), trace.to_arrays(expected)
  assert actual.keys() == expected.keys()
  for name in actual.keys() - {"seconds"}:
    assert actual[name].dtype == expected[name].dtype, name
    assert actual[name].tobytes() == expected[name].tobytes(), name


def test_run_equals_a_plain_python_loop(whole):
  bandit, environment = toy.bandit(), toy.environment()
  select, update = jax.jit(bandit.select), jax.jit(bandit.update)
  step = jax.jit(environment.step)
  for row, seed in enumerate(RUN["seeds"]):
    slots = jax.random.fold_in(jax.random.key(seed), 0)
    choices = jax.random.fold_in(jax.random.key(seed), 1)
    env_state = environment.init(jax.random.fold_in(slots, 0))
    state = bandit.init(jax.random.fold_in(choices, 0))
    for t in range(RUN["num_rounds"]):
      keys = jax.random.split(jax.random.fold_in(choices, t + 1))
      context = environment.context(env_state)
      decision = select(keys[0], state, context)
      feedback, outcome, env_state = step(
        jax.random.fold_in(slots, t + 1), env_state, decision.merge_weights
      )
      state = update(keys[1], state, context, decision, feedback)
      # Jit fuses sums, hence a few float32 roundings; counts are exact.
      for field in ("expected_reward", "realised_reward", "optimal_reward"):
        np.testing.assert_allclose(
          getattr(whole, field)[row, t], getattr(outcome, field), atol=1e-5
        )
      np.testing.assert_allclose(
        whole.merge_weights[row, t], decision.merge_weights, atol=1e-5
      )
      np.testing.assert_array_equal(
        whole.task_count[row, t], feedback.task_count
      )
      assert whole.aux["seen"][row, t] == decision.aux["seen"]
  assert set(whole.aux) == {"seen", "scale"}  # "scores" is no scalar


def test_lengths_and_rates(whole):
  assert whole.expected_reward.shape == (2, 23)
  np.testing.assert_array_equal(whole.chunk_rounds, [6, 6, 6, 5])
  assert np.isnan(whole.seconds[0]) and whole.rounds_per_second > 0


def test_chunks_seeds_and_loop_do_not_change_a_round(whole):
  longer = rollout.run(
    toy.bandit(), toy.environment(), **(RUN | {"num_rounds": 24, "seeds": (7,)})
  )
  mapped = rollout.run(
    toy.bandit(), toy.environment(), **(RUN | {"chunk_size": 23, "loop": "map"})
  )
  # Other programs, hence other roundings; 1e-5 is some 100 of them.
  np.testing.assert_allclose(
    longer.merge_weights[0, :23], whole.merge_weights[1], atol=1e-5
  )
  np.testing.assert_allclose(
    mapped.merge_weights, whole.merge_weights, atol=1e-5
  )
  np.testing.assert_array_equal(mapped.task_count, whole.task_count)


def test_every_bandit_meets_the_same_stream(whole):
  other = rollout.run(toy.bandit(5.0), toy.environment(), **RUN)
  assert np.abs(other.merge_weights - whole.merge_weights).max() > 0.1
  np.testing.assert_array_equal(other.task_mix, whole.task_mix)
  np.testing.assert_array_equal(other.task_count, whole.task_count)


def test_the_shown_mix_is_the_share_of_decayed_counts():
  environment = synthetic.synthetic(
    "quadratic",
    num_experts=3,
    num_tasks=3,
    task_mix=mixes.drift(num_tasks=3),
    monitor=monitor.exponential_moving_average(num_tasks=3, decay=0.5),
    requests=8,
  )
  found = rollout.run(toy.bandit(), environment, **RUN)
  for counts, shown in zip(found.task_count, found.shown_mix, strict=True):
    expected, decayed = np.full(3, 1 / 3), np.zeros(3)
    for count, mix in zip(counts, shown, strict=True):
      np.testing.assert_allclose(mix, expected, rtol=1e-5)
      decayed = 0.5 * decayed + count
      expected = decayed / decayed.sum()


def test_new_hyper_parameters_do_not_compile_again(whole):
  traced = 0

  def count_traces(*args):
    nonlocal traced
    traced += 1
    return toy._update(*args)

  bandit = toy.bandit()._replace(update=Partial(count_traces))
  rollout.run(bandit, toy.environment(), **RUN)
  after_one = traced
  other = bandit._replace(select=toy.bandit(0.5).select)
  rollout.run(other, toy.environment(0.3), **RUN)
  assert traced == after_one > 0


def test_what_was_put_on_a_device_compiles_once(whole):
  environment = jax.device_put(toy.environment(), jax.devices()[0])
  before = rounds.play._cache_size()
  found = rollout.run(toy.bandit(), environment, **RUN | {"chunk_size": 4})
  assert rounds.play._cache_size() == before + 1
  assert_same_bits(
    dataclasses.replace(found, chunk_rounds=whole.chunk_rounds), whole
  )


@pytest.mark.parametrize("spec", [jax.P(), jax.P(None, "x")])
def test_a_mesh_of_one_device_may_hold_more_axes_than_a_state(whole, spec):
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
  table = jax.device_put(
    jnp.zeros((2, 3)), jax.sharding.NamedSharding(mesh, spec)
  )
  plain = toy.environment()

  def step(table, *args):
    return plain.step(*args[:2], args[2] + table[0])

  environment = plain._replace(step=Partial(step, table))
  before = rounds.play._cache_size()
  found = rollout.run(toy.bandit(), environment, **RUN)
  assert rounds.play._cache_size() == before + 1
  np.testing.assert_allclose(
    found.expected_reward, whole.expected_reward, rtol=1e-6
  )


def test_plain_functions_are_accepted(whole):
  plain = Bandit(
    toy._init, lambda *args: toy.bandit().select(*args), toy._update
  )
  played = rollout.run(plain, toy.environment(), **RUN)
  # The temperature is a constant of this program: other roundings.
  np.testing.assert_allclose(
    played.merge_weights, whole.merge_weights, atol=1e-5
  )


@pytest.mark.parametrize("index", range(len(KILLS)), ids=str)
def test_resume_after_a_kill_gives_the_same_bits(index, killed_workdirs, whole):
  workdir = killed_workdirs[index]
  done = 1 if KILLS[index] == ("after", 4) else 0
  before = list((workdir / "checkpoints" / "tanbr").glob("carry.npz"))
  assert len(before) == (KILLS[index][1] > 2)
  resumed = rollout.run(toy.bandit(), toy.environment(), workdir=workdir, **RUN)
  assert_same_bits(resumed, whole)
  # The chunk that compiles has no time: it tells where the run went on.
  assert np.isnan(resumed.seconds[done + (KILLS[index][1] > 2)])
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["chunk"] for line in lines] == [0, 1, 2, 3]
  last = json.loads(lines[-1])
  regret = np.sum(whole.optimal_reward - whole.expected_reward, axis=1).mean()
  assert last["rounds"] == 23
  np.testing.assert_allclose(last["expected_regret"], regret, rtol=1e-5)


def test_a_finished_run_is_read_not_played(tmp_path, whole):
  first = rollout.run(
    toy.bandit(), toy.environment(), workdir=tmp_path, name="a/b", **RUN
  )
  carry = tmp_path / "checkpoints" / "a" / "b" / "carry.npz"
  written = carry.stat().st_mtime_ns
  again = rollout.run(
    toy.bandit(), toy.environment(), workdir=tmp_path, name="a/b", **RUN
  )
  assert_same_bits(again, first)
  assert_same_bits(again, whole)
  assert carry.stat().st_mtime_ns == written


@pytest.mark.parametrize(
  "change", ["bandit", "environment", "seeds", "num_rounds"]
)
def test_another_run_is_not_resumed(change, tmp_path):
  rollout.run(toy.bandit(), toy.environment(), workdir=tmp_path, **RUN)
  bandit = toy.bandit(0.2) if change == "bandit" else toy.bandit()
  noise = 0.2 if change == "environment" else toy.NOISE
  other = {"seeds": {"seeds": (3, 8)}, "num_rounds": {"num_rounds": 30}}
  with pytest.raises(ValueError, match="holds another run") as error:
    rollout.run(
      bandit,
      toy.environment(noise),
      workdir=tmp_path,
      **(RUN | other.get(change, {})),
    )
  assert "\n" not in str(error.value)


def _init_with_nan(key):
  return toy._env_init(key), jnp.int32(0)


def _step_with_nan(reward_from, expected_from, key, state, weights):
  mix, t = state
  feedback, outcome, mix = toy._env_step(jnp.float32(0.1), key, mix, weights)
  bad = t >= reward_from
  feedback = feedback._replace(
    task_reward=feedback.task_reward.at[1].set(
      jnp.where(bad, jnp.nan, feedback.task_reward[1])
    )
  )
  outcome = outcome._replace(
    expected_reward=jnp.where(
      t >= expected_from, jnp.inf, outcome.expected_reward
    )
  )
  return feedback, outcome, (mix, t + jnp.int32(1))


def _context_with_nan(state):
  return toy.Context(state[0])


def _with_nan(reward_from, expected_from):
  """Task 1's reward is NaN from round `reward_from` on, and so forth."""
  return Environment(
    Partial(_init_with_nan),
    Partial(_context_with_nan),
    Partial(_step_with_nan, jnp.int32(reward_from), jnp.int32(expected_from)),
  )


def test_a_reward_that_is_nan_counts_as_not_seen(whole):
  played = rollout.run(toy.bandit(), _with_nan(0, 100), **RUN)
  assert np.isfinite(played.merge_weights).all()
  np.testing.assert_array_equal(played.task_count[:, :, 1], 0)
  np.testing.assert_array_equal(
    played.nonfinite_rewards, whole.task_count[:, :, 1] > 0
  )
  # The bandit learnt as from a stream without task 1.
  seen = whole.task_count[:, :-1, [0, 2]].sum(axis=2).cumsum(axis=1)
  np.testing.assert_array_equal(played.aux["seen"][:, 1:], seen)


def test_an_expected_reward_that_is_infinite_stops_the_run():
  with pytest.raises(ValueError) as error:
    rollout.run(toy.bandit(), _with_nan(100, 8), **RUN)
  assert str(error.value) == (
    "expected_reward must be finite, got inf with seed 3 in round 8"
  )


def test_a_mix_off_the_simplex_stops_the_run():
  environment = toy.environment()

  def context(state):
    shown = environment.context(state)
    return toy.Context(shown.task_mix * jnp.array([1.0, 1.0, 3.0]))

  with pytest.raises(ValueError, match="sum to 1, got .* in round 0") as error:
    rollout.run(toy.bandit(), environment._replace(context=context), **RUN)
  assert str(error.value).startswith("context.task_mix must be non-negative")
  assert "seed 3" in str(error.value) and "\n" not in str(error.value)


def test_weights_off_the_simplex_stop_the_run(tmp_path):
  bandit = toy.bandit()

  def select(key, state, context):
    decision = bandit.select(key, state, context)
    factor = jnp.where(state.half < 0.1, 2.0, 1.0)  # from round 4 on
    return decision._replace(merge_weights=factor * decision.merge_weights)

  wrong = bandit._replace(select=select)
  with pytest.raises(ValueError, match="seed 3 in round 4") as error:
    rollout.run(wrong, toy.environment(), **RUN, workdir=tmp_path)
  assert str(error.value).startswith("merge_weights must be non-negative and")
  assert not list(tmp_path.rglob("*.npz"))


def test_seeds_may_be_any_sequence_of_integers(whole):
  for seeds in (jnp.array([3, 7]), range(3, 8, 4), [np.int64(3), 7]):
    found = rollout.run(
      toy.bandit(), toy.environment(), **(RUN | {"seeds": seeds})
    )
    assert_same_bits(found, whole)


def test_a_full_tree_is_told_once(monkeypatch, tmp_path):
  """From round 8 on for both seeds; the run goes on, also after a resume."""
  bandit = toy.bandit()

  def select(*args):
    decision = bandit.select(*args)
    rounds = -jnp.log2(args[1].half.astype(jnp.float32))
    return decision._replace(aux={"tree_full": rounds >= 8})

  lines = []
  monkeypatch.setattr(
    rollout.logging, "warning", lambda text, *args: lines.append(text % args)
  )
  full, run = bandit._replace(select=select), RUN | {"workdir": tmp_path}
  rollout.run(full, toy.environment(), **run)
  assert len(lines) == 1
  assert lines[0].startswith("tanbr: the tree is full with seed 3 in round 8")
  rollout.run(full, toy.environment(), **run)
  assert len(lines) == 1


def test_bandits_together_play_what_each_plays_alone(tmp_path):
  """Three values of a number; five chunks, of which a resume finds all."""
  arms = [toy.bandit(scale) for scale in (0.1, 0.2, 0.3)]
  together = rollout.run_together(
    arms, toy.environment(), workdir=tmp_path, **RUN
  )
  assert len(together) == 3
  for arm, found in zip(arms, together, strict=True):
    alone = trace.to_arrays(rollout.run(arm, toy.environment(), **RUN))
    found = trace.to_arrays(found)
    assert found.keys() == alone.keys()
    for name in alone.keys() - {"seconds"}:
      assert found[name].dtype == alone[name].dtype, name
      # Another number of rows, hence another program: a few roundings.
      np.testing.assert_allclose(found[name], alone[name], atol=1e-5)
  assert not np.allclose(together[0].merge_weights, together[2].merge_weights)
  again = rollout.run_together(arms, toy.environment(), workdir=tmp_path, **RUN)
  for one, other in zip(again, together, strict=True):
    assert_same_bits(one, other)


def test_bandits_of_two_structures_do_not_play_together():
  arms = [toy.bandit(), toy.bandit()._replace(init=Partial(lambda key: key))]
  for some, message in ((arms, "got 2 of 2 str"), ([], "got 0 of 0 str")):
    with pytest.raises(ValueError, match=message):
      rollout.run_together(some, toy.environment(), **RUN)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"num_rounds": 0}, "num_rounds must be at least 1, got 0"),
    ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
    ({"seeds": ()}, "different numbers, got \\[\\]"),
    ({"seeds": (1, 1)}, "different numbers, got \\[1, 1\\]"),
    ({"seeds": (-1,)}, "seeds must be in .*, got \\[-1\\]"),
    ({"seeds": [2**31]}, "seeds must be in .*, got \\[2147483648\\]"),
    ({"seeds": [0.2, 0.4]}, "sequence of integers, got \\[0.2, 0.4\\]"),
    ({"seeds": {3, 7}}, "sequence of integers, got {3, 7}"),
    ({"seeds": [True, False]}, "sequence of integers, got \\[True, False"),
    ({"seeds": 3}, "sequence of integers, got 3"),
    ({"name": "../x"}, "got name='..'"),
    ({"loop": "scan"}, "loop must be one of .*, got loop='scan'"),
  ],
)
def test_bad_arguments(change, message):
  with pytest.raises(ValueError, match=message):
    rollout.run(toy.bandit(), toy.environment(), **(RUN | change))
