"""erf(x) = 2/sqrt(pi) int_0^x exp(-t^2) dt, with k = 2/sqrt(pi), g = exp(-x^2): erf' = k g, g' = -2 x g."""

import math

import numpy as np

from tensorprog.atoms.pieces import HALF, add, piece
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, X, constant, smooth
from tensorprog.atoms.special import erf


def _sympy(x):
    import sympy

    return sympy.erf(x)


def _bell(x):
    y = np.clip(x, -30, 30)
    return np.exp(-y * y)


def _bell_sympy(x):
    import sympy

    return sympy.exp(-(x**2))


def _k():
    import sympy

    return 2 / sympy.sqrt(sympy.pi)


LETTERS = {
    "e": Generator(erf, {"gk": 1}, _sympy, add(piece(2, gates=[(0, HALF)]), piece(-1))),
    "g": Generator(_bell, {"gx": -2}, _bell_sympy, piece(1, quadratic=-1)),
    "k": constant(2 / math.sqrt(math.pi), _k, piece(2, pi=-1)),
    "x": X,
}

ERF = register(smooth("erf", {"e": 1}, LETTERS, parity="odd", infinity=0, radius=30,
                      sources=("williams1997computing",)))
