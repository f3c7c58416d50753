import json

import numpy as np
import toy

from tanbr_jax.online import trace
from tanbr_jax.storage import atomic


def test_save_and_load(tmp_path):
  one = toy.make_trace([[0.5, 0.25]], [[0.5, np.nan]], [[1.0, 1.0]])
  one.aux["depth"] = np.asarray([[1, 2]])
  two = toy.make_trace([[0.5]], [[0.5]], [[1.0]])
  trace.save(tmp_path / "trace.npz", {"drift/tanbr": one, "uniform": two})
  loaded = trace.load(tmp_path / "trace.npz")
  assert list(loaded) == ["drift/tanbr", "uniform"]
  for before, after in ((one, loaded["drift/tanbr"]), (two, loaded["uniform"])):
    before, after = trace.to_arrays(before), trace.to_arrays(after)
    assert before.keys() == after.keys()
    for name in before:
      np.testing.assert_array_equal(before[name], after[name])


def test_rate_leaves_compiling_chunks_out():
  joined = trace.join(
    [toy.make_trace([[0.5] * 10], [[0.5] * 10], [[1.0] * 10])] * 3
  )
  object.__setattr__(joined, "seconds", np.asarray([np.nan, 2.0, 3.0]))
  assert joined.rounds_per_second == 20 / 5
  assert joined.num_rounds == 30 and joined.num_seeds == 1


def test_json_has_neither_nan_nor_numpy(tmp_path):
  value = {"a": np.float32(0.5), "b": [np.nan, 1], "c": np.arange(2), "d": None}
  atomic.write_json(tmp_path / "new" / "x.json", value)
  found = json.loads((tmp_path / "new" / "x.json").read_text())
  assert atomic.is_sealed(found)
  del found["checksum"]
  assert found == {
    "a": 0.5,
    "b": [None, 1],
    "c": [0, 1],
    "d": None,
  }
  assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.json"]
