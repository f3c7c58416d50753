"""NeuralUCB with a diagonal Z in NumPy float64, for one hidden layer.

Slow loops and hand-written gradients, for V outputs; the algorithm of the
authors' public code (Zhou, Li and Gu 2020) as `neural_ucb_practical`
documents it.
"""

import numpy as np

NAMES = ("W1", "b1", "W2", "b2")


def from_flax(params):
  """The four arrays of a network with one hidden layer."""
  layers = params["params"]
  values = (
    layers["hidden_layers_0"]["kernel"],
    layers["hidden_layers_0"]["bias"],
    layers["output"]["kernel"],
    layers["output"]["bias"],
  )
  return dict(
    zip(NAMES, (np.asarray(v, np.float64) for v in values), strict=True)
  )


class Reference:
  def __init__(self, params, *, lam, nu, rate, max_steps, stop, dense, every):
    self.params = {k: v.copy() for k, v in params.items()}
    self.diagonal = {k: np.full(v.shape, lam) for k, v in params.items()}
    self.lam, self.nu, self.rate = lam, nu, rate
    self.max_steps, self.stop = max_steps, stop
    self.dense, self.every = dense, every
    self.data = []
    self.steps_taken = []

  def forward(self, x):
    hidden = np.maximum(x @ self.params["W1"] + self.params["b1"], 0)
    return hidden, hidden @ self.params["W2"] + self.params["b2"]

  def backward(self, x, hidden, output_gradient):
    into_hidden = (self.params["W2"] @ output_gradient) * (hidden > 0)
    return {
      "W1": np.outer(x, into_hidden),
      "b1": into_hidden,
      "W2": np.outer(hidden, output_gradient),
      "b2": output_gradient,
    }

  def select(self, candidates, mix):
    """The best candidate's index, its bonus and its gradient."""
    rows = []
    for x in candidates:
      hidden, output = self.forward(x)
      gradient = self.backward(x, hidden, mix)
      variance = sum(
        np.sum(self.lam * self.nu * gradient[k] ** 2 / self.diagonal[k])
        for k in NAMES
      )
      rows.append((mix @ output + np.sqrt(variance), variance, gradient))
    best = int(np.argmax([row[0] for row in rows]))
    return best, np.sqrt(rows[best][1]), rows[best][2]

  def update(self, x, gradient, reward, seen, order):
    """`order` permutes the slots that were learnt from, this one included."""
    if not np.any(seen):
      return
    for k in NAMES:
      self.diagonal[k] += gradient[k] ** 2
    self.data.append((x, reward, np.asarray(seen, np.float64)))
    count = len(self.data)
    if count > self.dense and (count - 1) % self.every:
      self.steps_taken.append(0)
      return
    self.train(order)

  def train(self, order):
    taken = 0
    while True:
      total = 0.0
      for row in order:
        x, reward, seen = self.data[row]
        hidden, output = self.forward(x)
        error = seen * (output - reward)
        total += np.sum(error**2)
        gradient = self.backward(x, hidden, 2 * error)
        for k in NAMES:
          pull = self.lam * self.params[k]
          self.params[k] = self.params[k] - self.rate * (gradient[k] + pull)
        taken += 1
        if taken == self.max_steps:
          break
      if taken == self.max_steps or total / len(order) <= self.stop:
        self.steps_taken.append(taken)
        return
