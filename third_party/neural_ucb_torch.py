"""Plain PyTorch NeuralUCB with a diagonal Z: our speed is compared with it.

Our own writing of the algorithm of the authors' public code (Zhou, Li and Gu
2020), for V tasks: `tanbr_jax.bandits.neural_ucb_practical` step by
step, in the eager style in which such code is written. Candidates,
rewards and sample orders come from outside, so that a run can be repeated.
Needs PyTorch, which is in none of our extras. Letters: V tasks, E experts, N
candidates, m width.
"""

import importlib
from typing import Any

import numpy as np

# What `parameters` of an agent are called, in this order.
NAMES = ("W1", "b1", "W2", "b2")


def _torch() -> Any:
  try:
    return importlib.import_module("torch")
  except ImportError as error:
    raise ImportError(
      "neural_ucb_torch needs PyTorch: pip install torch"
    ) from error


class TorchNeuralUCB:
  """One hidden layer of m relu units, V outputs; state in the object.

  Attributes:
    diagonal: [P] diagonal of Z.
    num_rounds: rounds learnt from.
  """

  def __init__(
    self,
    *,
    num_experts: int,
    num_tasks: int,
    hidden: int = 64,
    regularisation: float = 0.001,
    nu: float = 1.0,
    learning_rate: float = 0.01,
    max_steps: int = 1000,
    stop_loss: float = 1e-3,
    dense_rounds: int = 2000,
    sparse_every: int = 100,
    seed: int = 0,
  ):
    """Makes the agent.

    Args:
      num_experts: E.
      num_tasks: V.
      hidden: m.
      regularisation: lambda.
      nu: factor of the bonus, sqrt(lambda nu g^2 / Z).
      learning_rate: of SGD.
      max_steps: most single-sample steps a round.
      stop_loss: mean squared error of an epoch that ends the training.
      dense_rounds: rounds up to which every one is trained after,
      sparse_every: and afterwards one of so many.
      seed: of the network and of the sample orders.

    Raises:
      ImportError: PyTorch is not installed.
    """
    self._lib = _torch()
    self._lib.manual_seed(seed)
    nn = self._lib.nn
    self._network = nn.Sequential(
      nn.Linear(num_experts, hidden), nn.ReLU(), nn.Linear(hidden, num_tasks)
    )
    size = sum(p.numel() for p in self._network.parameters())
    self.diagonal = regularisation * self._lib.ones(size)
    self.num_rounds = 0
    self._regularisation, self._nu = regularisation, nu
    self._learning_rate, self._max_steps = learning_rate, max_steps
    self._stop_loss = stop_loss
    self._schedule = dense_rounds, sparse_every
    self._inputs, self._rewards = [], []
    self._rng = np.random.default_rng(seed)

  def set_parameters(self, parameters: dict[str, np.ndarray]) -> None:
    """Copies W1 [E, m], b1 [m], W2 [m, V], b2 [V] into the network."""
    with self._lib.no_grad():
      for name, own in zip(NAMES, self._network.parameters(), strict=True):
        values = self._lib.tensor(np.asarray(parameters[name]).T.copy())
        own.copy_(values)

  def parameters(self) -> dict[str, np.ndarray]:
    """Returns copies of W1 [E, m], b1 [m], W2 [m, V], b2 [V]."""
    own = self._network.parameters()
    return {
      name: p.detach().numpy().T.copy()
      for name, p in zip(NAMES, own, strict=True)
    }

  def select(
    self, candidates: np.ndarray, task_mix: np.ndarray
  ) -> tuple[int, float]:
    """Returns the candidate [N, E] of the highest bound, and its bonus.

    Z takes the chosen candidate's gradient in, as in the public code.
    """
    lib = self._lib
    # Copies: PyTorch warns of arrays that cannot be written to.
    mix = lib.from_numpy(np.array(task_mix, np.float32))
    means = self._network(lib.from_numpy(np.array(candidates, np.float32)))
    gradients, bounds, bonuses = [], [], []
    for row in means @ mix:
      self._network.zero_grad()
      row.backward(retain_graph=True)
      gradient = lib.cat([p.grad.flatten() for p in self._network.parameters()])
      scaled = self._regularisation * self._nu * gradient**2 / self.diagonal
      bonus = lib.sqrt(lib.sum(scaled)).item()
      gradients.append(gradient)
      bonuses.append(bonus)
      bounds.append(row.item() + bonus)
    best = int(np.argmax(bounds))
    self.diagonal += gradients[best] ** 2
    return best, bonuses[best]

  def update(
    self,
    weights: np.ndarray,
    task_reward: np.ndarray,
    order: np.ndarray | None = None,
  ) -> None:
    """Learns the rewards [V] of the played weights [E].

    Args:
      weights: [E].
      task_reward: [V].
      order: permutation of the rounds so far in which samples are taken; None
        draws one.
    """
    self._inputs.append(self._lib.from_numpy(np.array(weights, np.float32)))
    self._rewards.append(
      self._lib.from_numpy(np.array(task_reward, np.float32))
    )
    self.num_rounds += 1
    dense, every = self._schedule
    if self.num_rounds > dense and (self.num_rounds - 1) % every:
      return
    if order is None:
      order = self._rng.permutation(self.num_rounds)
    self._train(order)

  def _train(self, order) -> None:
    optimiser = self._lib.optim.SGD(
      self._network.parameters(),
      lr=self._learning_rate,
      weight_decay=self._regularisation,
    )
    num_steps = 0
    while True:
      epoch_loss = 0.0
      for row in order:
        optimiser.zero_grad()
        error = self._network(self._inputs[row]) - self._rewards[row]
        loss = self._lib.sum(error**2)
        loss.backward()
        optimiser.step()
        epoch_loss += loss.item()
        num_steps += 1
        if num_steps >= self._max_steps:
          return
      if epoch_loss / len(order) <= self._stop_loss:
        return
