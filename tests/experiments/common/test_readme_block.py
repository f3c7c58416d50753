import json

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.common import readme_block


def test_round_trip_through_a_readme():
  begin, end = readme_block.markers("kernels")
  readme = f"# Title\n\n{begin}\nold\n{end}\n\nMore.\n"
  text = readme_block.table(["a", "b"], [["1", "2"]])
  assert text == "| a | b |\n| --- | --- |\n| 1 | 2 |"
  written = readme_block.replace(readme, "kernels", text)
  assert readme_block.block(written, "kernels") == text
  assert written.startswith("# Title\n") and written.endswith("\n\nMore.\n")
  assert readme_block.replace(written, "kernels", text) == written


def test_markers_must_be_there_once():
  begin, end = readme_block.markers("kernels")
  readme = f"{begin}\n{end}\n"
  for broken in (f"{begin} only", f"{end}{begin}", readme + readme):
    with pytest.raises(ValueError, match="README must hold"):
      readme_block.replace(broken, "kernels", "text")
  # Markers of another part are not these.
  with pytest.raises(ValueError, match="got 0 and 0"):
    readme_block.block(readme, "algorithms")


def test_a_cell_of_a_table_is_one_line():
  made = readme_block.table(["a|b", "c"], [["x\ny", "|"]])
  assert made == "| a\\|b | c |\n| --- | --- |\n| x\\ny | \\| |"


@pytest.fixture
def given():
  if "run" not in flags.FLAGS:
    readme_block.define_flags("A folder.")
  with flagsaver.flagsaver():
    flags.FLAGS.mark_as_parsed()
    yield flags.FLAGS


def test_results_without_a_text_are_not_kept(tmp_path, given):
  results = tmp_path / "kept.json"
  results.write_text('{"value": 1}')
  given.run = str(tmp_path)

  def make(collect):
    readme_block.main(
      [""], "x", results, collect=collect, text=lambda r: str(r["value"])
    )

  with pytest.raises(KeyError):
    make(lambda run: {})
  assert json.loads(results.read_text()) == {"value": 1}
  # A folder without the file is told in one line.
  with pytest.raises(SystemExit, match="error: .*No such file.*config.json"):
    make(lambda run: (run / "config.json").read_text())
  make(lambda run: {"value": 2})
  assert json.loads(results.read_text())["value"] == 2
