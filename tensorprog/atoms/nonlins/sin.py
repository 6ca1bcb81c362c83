"""sin, with s = sin, c = cos: s' = c, c' = -s."""

import numpy as np

from tensorprog.atoms.pieces import HALF, add, piece
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, smooth


def _sin(x):
    import sympy

    return sympy.sin(x)


def _cos(x):
    import sympy

    return sympy.cos(x)


CIRCLE = {
    "s": Generator(np.sin, {"c": 1}, _sin, add(piece(-HALF, turn=1, wave=1), piece(HALF, turn=1, wave=-1))),
    "c": Generator(np.cos, {"s": -1}, _cos, add(piece(HALF, wave=1), piece(HALF, wave=-1))),
}

SIN = register(smooth("sin", {"s": 1}, CIRCLE, parity="odd", sources=("rahimi2007random",)))
