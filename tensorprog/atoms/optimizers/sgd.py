"""Stochastic gradient descent: the direction is the newest gradient."""

from fractions import Fraction

from tensorprog.atoms.optimizers import register
from tensorprog.atoms.rule import Rule

SGD = register(Rule(
    name="sgd", degree=Fraction(1),
    direction_of=lambda g, eps: g[-1],
    weights=lambda t: (Fraction(0),) * t + (Fraction(1),),
    sources=("robbins1951stochastic",),
))
