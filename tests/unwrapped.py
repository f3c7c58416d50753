"""The bandit inside of `standardised`, which learns from rewards as they are.

Tests of an algorithm's own arithmetic compare it on their rewards; that units
are learnt first is tested with `standardised` and for every learner.
"""


def unwrapped(bandit):
  return bandit.select.args[0]
