"""From a folder with experts to a plain dense one.

  python -m experiments.merge_checkpoint --checkpoint=IN --output=OUT \
    --weights=.25,.25,.5
  python -m experiments.merge_checkpoint --checkpoint=IN --output=OUT \
    --usage --text=FOLDER --scale=per_dimension --align
  python -m experiments.merge_checkpoint --checkpoint=IN --output=OUT \
    --state=runs/online_quick --method=tanbr

Prints a table of what both cost, which `merge.json` in the new folder holds
too. Run time: that of reading and writing the files; alignment takes time of
order F^3 for each expert, F its hidden width.
"""

from collections.abc import Sequence

from absl import app, flags

from experiments.common import launch
from experiments.merge_checkpoint import command


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    values = flags.FLAGS.flag_values_dict()
    names = command.Settings.__dataclass_fields__
    settings = command.Settings(**{name: values[name] for name in names})
    command.run(settings, progress=flags.FLAGS.progress)


if __name__ == "__main__":
  flags.DEFINE_string("checkpoint", "", "Folder of a model with experts.")
  flags.DEFINE_string("output", "", "The new folder.")
  flags.DEFINE_string("weights", "", "Comma list, or .npy of [E] or [L, E].")
  flags.DEFINE_bool("usage", False, "Weights by the routers' choices.")
  flags.DEFINE_string("state", "", "Folder of a finished online run.")
  flags.DEFINE_string("method", "", "Whose weights of that run.")
  flags.DEFINE_string("text", "", "Calibration: .npy of ids, text or folder.")
  flags.DEFINE_integer("length", 512, "Tokens of a calibration sequence.")
  flags.DEFINE_integer("sequences", 32, "Calibration sequences at most.")
  flags.DEFINE_string("scale", "off", "One of off, scalar, per_dimension.")
  flags.DEFINE_bool("align", False, "Align the experts' neurons first.")
  flags.DEFINE_bool("progress", True, "Draw a progress bar.")
  app.run(main)
