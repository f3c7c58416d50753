import dataclasses
import types

import numpy as np
import pytest

from experiments.online import model_stream
from tanbr_jax.environments.oracle import table
from tanbr_jax.storage import cache


@dataclasses.dataclass(frozen=True)
class Sizes:
  seed: int = 0
  steps: int = 2


@pytest.fixture
def oracle(tmp_path, monkeypatch):
  """Looks an oracle up; the searches and the lines of the log so far."""
  searches, told = [], []
  weights, rewards = np.eye(3, dtype="f4"), np.arange(6, dtype="f4")

  def search(*args):
    searches.append(args)
    return table.OracleTable(weights, rewards.reshape(3, 2)), 0.25

  monkeypatch.setattr(model_stream, "_search_oracle", search)
  monkeypatch.setattr(
    cache.logging, "warning", lambda text, *args: told.append(text % args)
  )

  def look(reward="accuracy"):
    settings = types.SimpleNamespace(
      oracle=Sizes(), stream=types.SimpleNamespace(reward=reward)
    )
    trained = types.SimpleNamespace(params={"w": np.ones(2, "f4")})
    found, error = model_stream._oracle(
      settings, trained, [np.ones(3)], tmp_path
    )
    np.testing.assert_array_equal(found.weights, weights)
    np.testing.assert_array_equal(found.rewards, rewards.reshape(3, 2))
    assert error == 0.25
    return len(searches), told

  return look


def test_a_damaged_oracle_is_named_and_searched_again(oracle, tmp_path):
  assert oracle() == oracle() == (1, [])
  (path,) = tmp_path.iterdir()
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[whole.index(np.eye(3, dtype="f4").tobytes())] ^= 1
  for number, content in enumerate((b"", whole[:100], bytes(flipped))):
    path.write_bytes(content)
    assert oracle()[0] == oracle()[0] == number + 2
    line = oracle()[1][number]
    assert line.startswith(repr(str(path))) and line.endswith("made anew")
  assert [x.name for x in tmp_path.iterdir()] == [path.name]


def test_another_oracle_under_its_name_is_not_taken(oracle, tmp_path):
  oracle()
  (first,) = tmp_path.iterdir()
  assert oracle(reward="log_likelihood")[0] == 2
  (second,) = set(tmp_path.iterdir()) - {first}
  first.write_bytes(second.read_bytes())
  searches, told = oracle()
  assert searches == 3 and "is not the oracle of that name" in told[0]
