"""Tables of the family `fitted`, from samples of real models' rewards.

  python -m experiments.fit_landscape --run=runs/landscape --write

Fits a concave quadratic to the log-likelihood of every task in each folder of
`experiments.sample_landscape` below `--run` and puts the tables beside the
family. Tables of other models stay. Prints how well all fit points that were
left out; with `--write` also puts that into the README of experiments/regret.
Letters: N points, V tasks, E experts, P coefficients.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app

from experiments import sample_landscape
from experiments.common import launch, readme_block
from tanbr_jax.environments.landscapes import fitted
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

RESULTS = launch.ROOT / "experiments" / "regret" / "landscapes.json"
NAME = "landscapes"  # Of the README's markers.
_NUM_STEPS = 3000
# Every fifth point is left out of the fit that is judged.
_LEFT_OUT = 5


def fit(weights: np.ndarray, rewards: np.ndarray) -> dict[str, np.ndarray]:
  """The concave quadratic of least squares, by accelerated projection.

  Args:
    weights: [N, E] on the simplex.
    rewards: [N] float.

  Returns:
    slopes [E] and curvatures [E, E], positive semidefinite: rewards are
    slopes . x - x' curvatures x.
  """
  num_experts = weights.shape[1]
  weights = weights.astype(np.float64)
  products = (weights[:, :, None] * weights[:, None, :]).reshape(
    len(weights), -1
  )
  features = np.concatenate([weights, -products], axis=1)
  gram = features.T @ features / len(features)
  target = features.T @ rewards / len(features)
  size = 1 / np.linalg.eigvalsh(gram)[-1]
  point = ahead = np.zeros(len(target))
  momentum = 1.0
  for _ in range(_NUM_STEPS):
    moved = ahead - size * (gram @ ahead - target)
    curvature = moved[num_experts:].reshape(num_experts, num_experts)
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    curvature = (vectors * np.maximum(values, 0)) @ vectors.T
    moved[num_experts:] = curvature.reshape(-1)
    following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
    ahead = moved + (momentum - 1) / following * (moved - point)
    point, momentum = moved, following
  shape = num_experts, num_experts
  return {
    "slopes": point[:num_experts],
    "curvatures": point[num_experts:].reshape(shape),
  }


def predict(table: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
  """Rewards [N] of weights [N, E]."""
  curved = np.einsum("ne,ef,nf->n", weights, table["curvatures"], weights)
  return weights @ table["slopes"] - curved


def shares(weights: np.ndarray, rewards: np.ndarray) -> tuple[float, float]:
  """R^2 and root mean squared error on points left out of the fit."""
  left_out = np.arange(len(weights)) % _LEFT_OUT == _LEFT_OUT - 1
  table = fit(weights[~left_out], rewards[~left_out])
  errors = rewards[left_out] - predict(table, weights[left_out])
  return (
    float(1 - np.mean(errors**2) / np.var(rewards[left_out])),
    float(np.sqrt(np.mean(errors**2))),
  )


def collect(run: Path) -> dict[str, Any]:
  """Fits every folder of samples and writes its table beside the family.

  Returns:
    name -> how well its table fits, of these and of all that are kept.

  Raises:
    ValueError: there are no samples.
  """
  found = {}
  for path in sorted(run.rglob(sample_landscape.FILE)):
    name = path.parent.name
    arrays, _ = atomic.read_arrays(path)
    weights = arrays["weights"]
    tasks = arrays["log_likelihood"].T.astype(np.float64)
    tables = [fit(weights, rewards) for rewards in tasks]
    atomic.write_arrays(
      fitted.FOLDER / f"{name}.npz",
      {
        key: np.float32([table[key] for table in tables])
        for key in ("slopes", "curvatures")
      },
    )
    judged = [shares(weights, rewards) for rewards in tasks]
    agree = [
      np.corrcoef(likelihood, accuracy)[0, 1]
      for likelihood, accuracy in zip(tasks, arrays["accuracy"].T, strict=True)
    ]
    found[name] = {
      "num_experts": weights.shape[1],
      "num_points": len(weights),
      "explained": [share for share, _ in judged],
      "errors": [error for _, error in judged],
      "accuracy": [float(value) for value in agree],
    }
  if not found:
    raise ValueError(f"{run} holds no {sample_landscape.FILE}")
  kept = reporting.read_json(RESULTS) if RESULTS.exists() else {}
  return dict(sorted({**kept, **found}.items()))


def table(results: Mapping[str, Any]) -> str:
  """The table as Markdown, below its caption; see `collect`."""
  lines = []
  for name, row in results.items():
    explained, errors = np.array(row["explained"]), np.array(row["errors"])
    # R^2 is 1 less the squared error over the variance, task by task.
    spread = errors / np.sqrt(1 - explained)
    lines.append(
      [
        f"`{name}`",
        str(row["num_experts"]),
        f"{row['num_points']:,}",
        f"{explained.min():.3f} to {explained.max():.3f}",
        f"{errors.mean():.3f} of {spread.mean():.2f}",
        f"{min(row['accuracy']):.2f} to {max(row['accuracy']):.2f}",
      ]
    )
  titles = [
    "model",
    "E",
    "points",
    "R^2, tasks",
    "error of a task's spread, nats",
    "correlation with accuracy",
  ]
  caption = "Fits judged on every fifth point, which they have not seen."
  return f"{caption}\n\n{readme_block.table(titles, lines)}"


def main(argv: Sequence[str]) -> None:
  readme_block.main(argv, NAME, RESULTS, collect=collect, text=table)


if __name__ == "__main__":
  readme_block.define_flags("Folder with runs of sample_landscape below it.")
  app.run(main)
