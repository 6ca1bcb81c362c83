"""log(x), with u = 1/x: l' = u, u' = -u^2."""

import numpy as np

from tensorprog.atoms.nonlins.reciprocal import LETTERS
from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, smooth


def _sympy(x):
    import sympy

    return sympy.log(x)


LOG = register(smooth("log", {"l": 1}, LETTERS | {"l": Generator(np.log, {"u": 1}, _sympy)}, domain="positive",
                      sources=("dlmf",)))
