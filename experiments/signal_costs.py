"""What a slot costs that tells more than its rewards, and what learners cost.

  python -m experiments.signal_costs
  python -m experiments.signal_costs --config=configs/online/gpu.py

Times a slot of the main job's size, compiled, on a model that is drawn and not
trained: merging, serving and all that the slot tells. The gradient is taken of
1, 2, 4, ... of the requests. A learner's time is that of one decision and one
update, of a state that has learnt nothing yet. All of these take turns. Writes
`signal_costs.json` and prints one table, in milliseconds and in units of the
merged slot that tells its rewards alone.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.common import launch
from experiments.online import settings as online_settings
from experiments.online.settings import OnlineSettings
from experiments.online_merging import make_learners
from tanbr_jax import bandits, data
from tanbr_jax.environments import Environment, mixes, moe_slots
from tanbr_jax.environments.oracle.table import OracleTable
from tanbr_jax.online import signals
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic
from tanbr_jax.timing import latency

FILE = "signal_costs.json"
PLAIN = "merged"
# As the built-in text has; learners keep statistics of each.
NUM_TASKS = 8
# Of the name of a row that is a learner's.
LEARNER = "learner, "


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Measures every kind of slot, writes the run's folder, prints the table."""
  settings = online_settings.read(config)
  if config.model.path:
    raise ValueError(
      "signal costs are of the model of config.pretrain, got "
      f"model.path={config.model.path!r}"
    )
  folder = reporting.open_workdir(workdir, config, seeds=[0])
  rows = measure(settings)
  atomic.write_json(folder / FILE, {"rows": rows})
  tables.print_rows(
    [
      {
        "slot": row["slot"],
        "median, ms": f"{row['median']:.3f}",
        "quartiles, ms": f"{row['low']:.3f} to {row['high']:.3f}",
        "merged slots": f"{row['merged_slots']:.2f}",
      }
      for row in rows
    ]
  )


def options(requests: int) -> dict[str, dict[str, Any]]:
  """Name of a kind of slot -> its arguments of `moe_slots`."""
  counts = [2**k for k in range(requests.bit_length()) if 2**k < requests]
  found: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "merged, usage": {"usage": True},
    "routed": {"serve": "routed"},
    "routed, usage": {"serve": "routed", "usage": True},
  }
  for count in [*counts, requests]:
    found[f"merged, gradient of {count}"] = {"gradient_requests": count}
  even = requests - requests % 2  # differences are between two merges
  for signal in ("entropy", "agreement", "differences"):
    found[f"merged, {signal} of {even}"] = {
      "gradient_requests": even,
      "signal": signal,
    }
  return found


def measure(
  settings: OnlineSettings, *, clock: Callable[[], float] = time.perf_counter
) -> list[dict[str, Any]]:
  """One row a kind of slot, then one a learner of the config.

  Args:
    settings: of the main job, for the sizes of its model and slots.
    clock: seconds; `time.process_time` counts the work of all cores, which
      other programs on the same machine disturb less.
  """
  key, num_experts = jax.random.key(0), settings.pretrain.num_experts
  weights = jnp.full(num_experts, 1 / num_experts)
  make = _maker(settings)
  functions = {}
  for name, given in options(settings.stream.requests).items():
    environment = make(**given)
    functions[name] = functools.partial(
      _slot, environment, key, environment.init(key), weights
    )
  # What learners are told comes from one slot that tells everything.
  learners = make_learners(settings, num_tasks=NUM_TASKS)
  told = make(gradient_requests=settings.stream.requests, usage=True)
  context = told.context(told.init(key))
  feedback = _slot(told, key, told.init(key), weights)
  for name, bandit in learners.items():
    functions[LEARNER + name] = functools.partial(
      _learn, bandit, key, bandit.init(key), context, feedback
    )
  found = latency.wall_times(
    functions, repeats=settings.latency_repeats, clock=clock
  )
  unit = found[PLAIN].median
  return [
    {
      "slot": name,
      "median": took.median,
      "low": took.low,
      "high": took.high,
      "merged_slots": took.median / unit,
    }
    for name, took in found.items()
  ]


def _maker(settings: OnlineSettings) -> Callable[..., Environment]:
  model = settings.pretrain.make_model()
  rng = np.random.default_rng(0)
  length = 64 * (settings.pretrain.context + 1)
  text = rng.integers(0, 256, (NUM_TASKS, length)).astype(np.uint8)
  num_experts = settings.pretrain.num_experts
  table = OracleTable(
    jnp.full((1, num_experts), 1 / num_experts), jnp.zeros((1, NUM_TASKS))
  )
  return functools.partial(
    moe_slots.moe_slots,
    model,
    model.init(jax.random.key(1)),
    data.from_arrays(list(text)),
    task_mix=mixes.fixed(num_tasks=NUM_TASKS),
    optimal_table=table,
    requests_per_slot=settings.stream.requests,
    context=settings.pretrain.context,
    reward=settings.stream.reward,
    paired=False,
  )


@jax.jit
def _slot(
  environment: Environment, key: jax.Array, state: Any, weights: jax.Array
) -> Any:
  return environment.step(key, state, weights)[0]


@jax.jit
def _learn(
  bandit: bandits.Bandit,
  key: jax.Array,
  state: Any,
  context: bandits.Context,
  feedback: bandits.Feedback,
) -> Any:
  decision = bandit.select(key, state, context)
  shown, _ = signals.shown(feedback, bandit.needs)
  return decision, bandit.update(key, state, context, decision, shown)


if __name__ == "__main__":
  launch.start(
    run, config="configs/online/quick.py", workdir="runs/signal_costs"
  )
