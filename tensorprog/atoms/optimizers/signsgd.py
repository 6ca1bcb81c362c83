"""SignSGD: the direction is the sign of the newest gradient."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.optimizers import register
from tensorprog.atoms.rule import Rule

SIGNSGD = register(Rule(
    name="signsgd", degree=Fraction(0),
    direction_of=lambda g, eps: np.sign(g[-1]),
    sources=("bernstein2018signsgd",),
))
