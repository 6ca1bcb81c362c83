"""sign(x): -1, 0 or 1."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import add, piece
from tensorprog.atoms.registry import register


def _sympy(x):
    import sympy

    return sympy.sign(x)


SIGN = register(Nonlinearity(
    name="sign",
    numpy=np.sign,
    slope=None,
    derivative=None,
    sympy=_sympy,
    parity="odd", degree=Fraction(0), infinity=Fraction(0), kinks=(Fraction(0),), jumps=(Fraction(0),),
    pieces=add(piece(2, gates=[(0, 0)]), piece(-1)),
    sources=("bernstein2018signsgd",),
))
