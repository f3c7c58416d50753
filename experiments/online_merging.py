"""The main job: bandits merge a real model's experts while its stream drifts.

  python -m experiments.online_merging
  python -m experiments.online_merging --config.model.path=FOLDER \
    --config.data.path=TASKS --workdir=runs/online_checkpoint

Pre-trains a small mixture-of-experts model of bytes (once, kept in the cache),
finds the best weights of every mix beforehand, then lets every method serve the
same stream of requests and prints one table. Writes the run's folder with
figures and `report.html`; started again with the same `--workdir` it resumes.
`--config.devices=all` spreads the seeds over the devices of this machine, and
the same command on each of N hosts over theirs, with `--distributed
--coordinator=HOST:PORT --num_processes=N --process_id=I`.
With `--config.model.path` the model is a checkpoint that is read, its tokens
those of the tokenizer beside it; with `--config.model.finetunes=A,B` too the
experts are fine-tunes or adapters of the dense model there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.common import drawing, launch, streams
from experiments.online import model_stream
from experiments.online.settings import (
  OF_MODEL,
  OF_ROUTER,
  OnlineSettings,
  read,
)
from tanbr_jax import bandits, data
from tanbr_jax.environments import Environment
from tanbr_jax.online import estimates, processes, regret, trace
from tanbr_jax.online.trace import Trace
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting
from tanbr_jax.timing import serving

COLUMNS = (
  tables.Column("mean_reward", "mean reward", 4),
  tables.Column("last_quarter_reward", "last quarter", 4),
  tables.Column("gap_recovered", "gap recovered", 2),
  tables.Column("expected_regret", "expected regret", 2),
  tables.Column("growth_exponent", "growth exponent", 2),
  tables.Column("rounds_per_second", "rounds/s", 1),
  tables.Column("expert_bytes", "expert bytes", 0),
  tables.Column("slot_latency_ms", "slot, ms", 2),
)


def run(
  config: ml_collections.ConfigDict, *, workdir: str, progress: bool
) -> None:
  """Prepares the stream, plays every method on it, writes the run's folder."""
  # Everything that can be wrong, before anything that takes long.
  settings = read(config)
  cache = data.cache_dir(settings.cache_dir)
  corpus = settings.source.read_text(settings.data_path, cache)
  learners = make_learners(settings, num_tasks=len(corpus.task_names))
  methods = playable(settings, learners)
  ingredients = model_stream.collect(settings, corpus)
  folder = reporting.open_workdir(
    workdir,
    config,
    seeds=settings.run.seeds,
    corpus_fingerprint=corpus.fingerprint,
  )
  for message in corpus.messages:
    print(message)
  if left_out := [name for name in settings.bandits if name not in methods]:
    print(f"left out, because there is no router: {', '.join(left_out)}")
  stream = model_stream.prepare(
    settings, corpus, ingredients, cache_dir=cache, progress=progress
  )

  def play(
    method: str, bandit: bandits.Bandit, environment: Environment
  ) -> Trace:
    return settings.run.play(
      bandit, environment, workdir=folder, name=method, progress=progress
    )

  # The oracle first, because all regret counts from what it earns.
  oracle = play("oracle", make_oracle(stream), stream.informed)
  static = make_best_static(settings, stream, oracle)
  learners["best_static"] = static
  if stream.usage is not None:
    learners["follow_task_mix"] = make_follow_task_mix(stream)
    learners["routed"] = static  # what it plays is ignored
  # Then every other method on the same requests.
  traces = {}
  for method in methods:
    if method != "oracle":
      learner = learners[method]
      served = stream.routed
      if method != "routed":
        served = stream.merged(learner.needs)
      one = play(method, learner, served)
      traces[method] = regret.against(one, oracle)
  traces["oracle"] = regret.against(oracle, oracle)
  processes.first_alone(
    lambda: conclude(
      folder, settings, stream, traces, task_names=corpus.task_names
    )
  )


def conclude(
  folder: Path,
  settings: OnlineSettings,
  stream: model_stream.ModelStream,
  traces: Mapping[str, Trace],
  *,
  task_names: Sequence[str],
) -> None:
  """Measures what serving costs, writes summary, figures and report."""
  trace.save(folder / reporting.TRACE, traces)
  costs = serving.slot_costs(
    stream.model,
    stream.params,
    merge_weights=stream.table.weights[0],
    input_ids=stream.input_ids,
    repeats=settings.latency_repeats,
  )
  summary = summarise(traces, costs) | stream.figures
  summary["task_names"] = tables.csv_line(task_names)
  reporting.write_summary(folder, summary)
  draw(folder)


def make_learners(
  settings: OnlineSettings, *, num_tasks: int
) -> dict[str, bandits.Bandit]:
  """The methods that need no model, made before it is trained.

  Raises:
    ValueError: an option is not allowed, or a method needs a signal that the
      stream does not give.
  """
  learners = {
    method: streams.construct(
      method,
      settings.methods.get(method, {}),
      num_experts=settings.source.num_experts,
      num_tasks=num_tasks,
    )
    for method in settings.bandits
    if method not in OF_MODEL
  }
  for method, learner in learners.items():
    settings.stream.check_needs(learner.needs, method=method)
  return learners


def playable(
  settings: OnlineSettings, learners: Mapping[str, bandits.Bandit]
) -> list[str]:
  """The methods that the model can serve: without a router not all.

  Raises:
    ValueError: none is left.
  """
  if settings.source.has_router:
    return settings.bandits
  found = [
    method
    for method in settings.bandits
    if method not in OF_ROUTER
    and not (method in learners and "usage" in learners[method].needs)
  ]
  if not found:
    raise ValueError(
      f"fine-tunes have no router, which all methods need: {settings.bandits}"
    )
  return found


def make_oracle(stream: model_stream.ModelStream) -> bandits.Bandit:
  """Plays the table's choice for the true mix."""
  num_tasks, num_experts = stream.sizes
  return bandits.oracle(
    num_experts=num_experts,
    num_tasks=num_tasks,
    policy=model_stream.policy(stream),
  )


def make_best_static(
  settings: OnlineSettings,
  stream: model_stream.ModelStream,
  oracle: Trace,
) -> bandits.Bandit:
  """Plays the best weights for the mean mix of all that the stream serves.

  Nobody knows that mix beforehand: the best static weights in hindsight.
  """
  num_tasks, num_experts = stream.sizes
  mean_mix = jnp.asarray(oracle.task_mix.mean(axis=(0, 1)))
  return bandits.fixed(
    num_experts=num_experts,
    num_tasks=num_tasks,
    weights=model_stream.best_weights(settings, stream, mean_mix),
  )


def make_follow_task_mix(stream: model_stream.ModelStream) -> bandits.Bandit:
  """Plays x = psi R with R the router's usage of the experts by task."""
  num_tasks, num_experts = stream.usage.shape
  rows = np.asarray(stream.usage, np.float64)
  return bandits.follow_task_mix(
    num_experts=num_experts,
    num_tasks=num_tasks,
    table=rows / rows.sum(axis=1, keepdims=True),
  )


def summarise(
  traces: Mapping[str, Trace], costs: Mapping[str, float]
) -> dict[str, float]:
  """Flat figures of every method, and what serving costs.

  `<method>/gap_recovered` is the share of the oracle's lead over the best
  static weights that the method had in the last quarter of the run.
  """
  summary = dict(costs)
  quarter = max(1, next(iter(traces.values())).num_rounds // 4)
  last = {
    name: one.expected_reward[:, -quarter:].mean(axis=1, dtype=np.float64)
    for name, one in traces.items()
  }
  for name, one in traces.items():
    form = "routed" if name == "routed" else "merged"
    figures = reporting.summarise(one)
    for key in ("expert_bytes", "slot_latency_ms"):
      figures[key] = costs[f"{form}/{key}"]
    if "best_static" in last and name not in ("best_static", "oracle"):
      recovered = estimates.ratio_of_means(
        last[name] - last["best_static"], last["oracle"] - last["best_static"]
      )
      figures |= reporting.estimate_entries("gap_recovered", recovered)
    summary |= {f"{name}/{key}": value for key, value in figures.items()}
  return summary


def draw(folder: Path) -> None:
  """Figures, table and report from the files of the run's folder."""
  config = reporting.read_json(folder / reporting.CONFIG)["config"]
  model = config.get("model", {})
  unit = "token" if model.get("path") else "byte"
  reward = {
    "accuracy": f"next-{unit} accuracy",
    "log_likelihood": f"log-likelihood (nats a {unit})",
    "whole_words": "share of whole words",
    "plain_letters": "share of letters and spaces predicted",
    "judge": "agreement with the routed model",
  }[config["reward"]]
  what = "a mixture-of-experts model"
  if model.get("finetunes"):
    what = "fine-tunes of one model"
  summary = reporting.read_json(folder / reporting.SUMMARY)
  traces = trace.load(folder / reporting.TRACE)
  figures = drawing.draw_stream(
    folder,
    traces,
    task_names=tables.read_csv_line(summary["task_names"]),
    reward_name=reward,
    unit=reward,
  )
  drawing.finish(
    folder,
    title=f"Online merging of {what}",
    columns=COLUMNS,
    figures=figures,
    notes=_notes(config, reward),
    methods=list(traces),
  )


def _notes(config: Mapping, reward: str) -> list[str]:
  return [
    f"Reward is {reward} on held-out text; {config['num_rounds']} slots of "
    f"{config['requests']} requests, {config['num_seeds']} seeds, mix "
    f"{config['mix']!r}. Expected regret is counted from what the oracle, "
    "which sees the true mix, earned on the same requests. Brackets are 95 % "
    "intervals over seeds: Student's, for exponents the bootstrap's.",
    "tanbr_paper is the paper's form as reconstructed; "
    "best_static is the best fixed merge in hindsight; follow_task_mix plays "
    "the mix times the router's usage; routed serves all experts. Gap "
    "recovered is the share of the oracle's lead over best_static in the last "
    "quarter.",
  ]


if __name__ == "__main__":
  launch.start(
    run,
    config="configs/online/quick.py",
    workdir="runs/online_quick",
    has_bars=True,
    spreads=True,
  )
