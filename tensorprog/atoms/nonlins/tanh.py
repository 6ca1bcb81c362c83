"""tanh, with t = tanh, q = sech^2: t' = q, q' = -2 t q."""

import numpy as np

from tensorprog.atoms.registry import register
from tensorprog.atoms.smooth import Generator, smooth


def sech2(x):
    """Return 1/cosh(x)^2 without cancellation or overflow."""
    e = np.exp(-2 * np.abs(x))
    return 4 * e / (1 + e) ** 2


def _tanh(x):
    import sympy

    return sympy.tanh(x)


T = Generator(np.tanh, {"q": 1}, _tanh)
Q = Generator(sech2, {"qt": -2}, lambda x: 1 - _tanh(x) ** 2)

TANH = register(smooth("tanh", {"t": 1}, {"t": T, "q": Q}, parity="odd", infinity=0, sources=("poole2016exponential",)))
