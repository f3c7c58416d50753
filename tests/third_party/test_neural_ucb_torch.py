"""The PyTorch NeuralUCB against the NumPy one, where PyTorch is installed."""

import sys

import neural_ucb_reference
import numpy as np
import pytest

from third_party.neural_ucb_torch import TorchNeuralUCB

E, V = 3, 2


def test_without_pytorch_it_says_so_in_a_line(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(ImportError, match="^[^\n]*pip install torch[^\n]*$"):
    TorchNeuralUCB(num_experts=E, num_tasks=V)


def test_it_takes_the_references_steps():
  pytest.importorskip("torch")
  options = dict(max_steps=30, stop_loss=1e-2, dense_rounds=10, sparse_every=3)
  agent = TorchNeuralUCB(
    num_experts=E, num_tasks=V, hidden=8, regularisation=0.01, nu=0.5, **options
  )
  slow = neural_ucb_reference.Reference(
    {k: v.astype(np.float64) for k, v in agent.parameters().items()},
    lam=0.01,
    nu=0.5,
    rate=0.01,
    max_steps=30,
    stop=1e-2,
    dense=10,
    every=3,
  )
  rng = np.random.default_rng(0)
  for t in range(15):
    candidates = rng.dirichlet(np.ones(E), 5).astype(np.float32)
    mix = rng.dirichlet(np.ones(V))
    best, bonus, gradient = slow.select(candidates, mix)
    ours, our_bonus = agent.select(candidates, mix)
    assert ours == best
    np.testing.assert_allclose(our_bonus, bonus, rtol=1e-4)
    x = candidates[best]
    reward = np.array([x[0], 1 - x[1]])
    order = rng.permutation(t + 1)
    slow.update(x, gradient, reward, np.ones(V), order)
    agent.update(x, reward, order)
    for name, values in agent.parameters().items():
      np.testing.assert_allclose(values, slow.params[name], atol=1e-4)
