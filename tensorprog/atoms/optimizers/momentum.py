"""Heavy-ball momentum: the direction is sum_s beta^(t-s) G_s with beta = 9/10."""

from fractions import Fraction

from tensorprog.atoms.optimizers import register
from tensorprog.atoms.rule import Rule, discounted

BETA = Fraction(9, 10)

MOMENTUM = register(Rule(
    name="momentum", degree=Fraction(1),
    direction_of=lambda g, eps: discounted(g, float(BETA)),
    weights=lambda t: tuple(BETA ** (t - s) for s in range(t + 1)),
    sources=("polyak1964some",),
))
