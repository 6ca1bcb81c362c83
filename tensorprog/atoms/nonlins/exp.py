"""exp, its own derivative."""

import numpy as np

from tensorprog.atoms.pieces import piece
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, smooth


def _exp(x):
    import sympy

    return sympy.exp(x)


EXP = register(smooth("exp", {"e": 1}, {"e": Generator(np.exp, {"e": 1}, _exp, piece(1, linear=1))},
                      sources=("daniely2016toward",)))
