"""quantizer(x, N): N levels evenly spaced from -1 to 1, thresholds midway between them; N = 2 is sign.

As a sum of steps: quantizer(x) = 1/(N-1) sum_{i=1}^{N-1} sign(x - g_i), g_i = (2i - N)/(N - 1). A second parameter is
another spacing D of the thresholds, g_i = (i - N/2) D (optimal spacings depend on the input's variance).
"""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import add, piece
from tensorprog.atoms.registry import Family, register
from tensorprog.errors import RecordError

#: Up to this many levels the sum of steps is written out.
MANY = 64


def quantizer(levels: Fraction, spacing: Fraction | None = None) -> Nonlinearity:
    """Return the record of a uniform quantizer with 3 to 4096 levels and a positive spacing."""
    if levels.denominator != 1 or not 3 <= levels <= 4096:
        raise RecordError(f"quantizer({levels})", levels, "the number of levels is whole, at least 3 and at most 4096",
                          "write sign(x) for two levels")
    if spacing is not None and spacing <= 0:
        raise RecordError(f"quantizer({levels}, {spacing})", spacing, "the spacing is positive", "write 1/2")
    n, d = int(levels), spacing if spacing is not None else Fraction(2, int(levels) - 1)
    thresholds = tuple((i - Fraction(n, 2)) * d for i in range(1, n))
    edges = np.array([float(g) for g in thresholds])

    def values(x):
        # The mean of sign(x - g_i): thresholds below minus thresholds above (at a threshold, half of each).
        g = edges.astype(x.dtype)
        return ((np.searchsorted(g, x, "left") + np.searchsorted(g, x, "right")) / (n - 1) - 1).astype(x.dtype)

    def formula(x):
        import sympy

        rationals = (sympy.Rational(g.numerator, g.denominator) for g in thresholds)
        return sympy.Add(*(sympy.sign(x - g) for g in rationals)) / (n - 1)

    steps = add(piece(-1), *(piece(Fraction(2, n - 1), gates=[(g, 0)]) for g in thresholds)) if n <= MANY else None
    params = (levels,) if spacing is None else (levels, spacing)
    return Nonlinearity(
        name=f"quantizer({', '.join(map(str, params))})", numpy=values, slope=None, derivative=None, sympy=formula,
        parity="odd", taylor=None if n % 2 == 0 else (False,) * 7, infinity=Fraction(0), kinks=thresholds,
        jumps=thresholds, sources=("blumenfeld2019mean",), params=params, scale=d * n / 2,
        pieces=steps,
    )


QUANTIZER = register(Family("quantizer", quantizer, examples=((3,), (4,), (16,), (5, Fraction(1, 3)))))
