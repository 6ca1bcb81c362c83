"""Functions on [0, 1] as local polynomials on a uniform grid: made once, read for millions of arguments at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import chebyshev

from tensorprog.errors import NotCoveredError

#: Degree of the polynomials: six reads an argument, and errors that fall like the sixth power of a panel.
DEGREE = 5
#: Panels of a lookup, at most; panels on which the function itself is asked for, and its values in each.
MOST, COARSE, MANY = 1 << 16, 1 << 11, 24
#: Where a fit is checked, far from the nodes: the middle and both ends of a panel, from -1 to 1.
CHECKS = np.array([-0.997, 0.0, 0.997])


def chebyshev_nodes(n: int) -> np.ndarray:
    """Return the n zeros of the Chebyshev polynomial of degree n."""
    return np.cos(np.pi * (np.arange(n) + 0.5) / n)


def chebyshev_coefficients(values: np.ndarray) -> np.ndarray:
    """Return the Chebyshev coefficients, along the last axis, of values at ``chebyshev_nodes`` (as many).

    >>> print(chebyshev_coefficients(chebyshev_nodes(4) ** 2).round(12) + 0.0)
    [0.5 0.  0.5 0. ]
    """
    n = values.shape[-1]
    basis = chebyshev.chebvander(chebyshev_nodes(n), n - 1) * (2 / n)
    basis[:, 0] /= 2
    return values @ basis


NODES = chebyshev_nodes(DEGREE + 1)
_TO_POWERS = np.linalg.inv(np.vander(NODES, DEGREE + 1, increasing=True))


class Lookup:
    """A function on [0, 1], made by ``fit``.

    >>> sine = Lookup.fit(np.sin, 1e-13)
    >>> bool(abs(sine(np.array([0.3]))[0] - np.sin(0.3)) < 1e-13)
    True
    """

    def __init__(self, coefficients: np.ndarray):
        #: In powers of the position within a panel, from -1 to 1; shape (DEGREE + 1, panels).
        self.coefficients = np.ascontiguousarray(coefficients)

    @property
    def panels(self) -> int:
        """Return how many panels it has."""
        return self.coefficients.shape[1]

    @staticmethod
    def fit(fn: Callable[[np.ndarray], np.ndarray], tol: float, coarse: int = 4) -> Lookup:
        """Return the lookup of ``fn`` with an error of about ``tol`` times its largest value.

        Panels of high degree are halved until they meet the tolerance between their nodes; the lookup is made of them,
        so that ``fn`` may be slow.

        Args:
            fn: numbers in [0, 1], shape (k,), to values.
            coarse: panels to begin with, a power of two; the function may have a kink where they meet.

        Raises:
            NotCoveredError: the finest panels are too coarse.
        """
        while True:
            coefficients = chebyshev_coefficients(_sampled(fn, coarse, chebyshev_nodes(MANY)))
            scale = float(np.max(np.abs(coefficients))) or 1.0
            error = np.abs(coefficients @ chebyshev.chebvander(CHECKS, MANY - 1).T - _sampled(fn, coarse, CHECKS)).max()
            if error <= tol * scale:
                break
            if coarse >= COARSE or not np.isfinite(error):
                raise NotCoveredError("dual", error / scale, f"{coarse} panels do not resolve this function",
                                      "evaluate it layer by layer, or name its kinks")
            coarse *= 2
        ratio = 1
        while True:
            starts = (2 * np.arange(ratio) + 1) / ratio - 1
            nodes, checks = ((starts[:, None] + x / ratio).ravel() for x in (NODES, CHECKS))
            seen, told = ((coefficients @ chebyshev.chebvander(x, MANY - 1).T).reshape(coarse * ratio, -1)
                          for x in (nodes, checks))
            powers = seen @ _TO_POWERS.T
            error = np.abs(powers @ np.vander(CHECKS, DEGREE + 1, increasing=True).T - told).max()
            if error <= tol * scale or coarse * ratio >= MOST:
                return Lookup(powers.T)
            ratio *= 2

    def __call__(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the values at x, an array of floats in [0, 1]; ``out`` must not be x."""
        table = self.coefficients.astype(x.dtype, copy=False)
        y = x * x.dtype.type(self.panels)
        panel = y.astype(np.intp)
        np.minimum(panel, self.panels - 1, out=panel)
        y -= panel
        y *= 2
        y -= 1
        value = np.empty_like(y) if out is None else out
        np.take(table[-1], panel, out=value, mode="clip")
        term = np.empty_like(y)
        for row in table[-2::-1]:
            np.take(row, panel, out=term, mode="clip")
            value *= y
            value += term
        return value


def _sampled(fn, panels: int, at: np.ndarray) -> np.ndarray:
    """Return values at the same positions of every panel, shape (panels, positions)."""
    x = (np.arange(panels)[:, None] + (1 + at) / 2) / panels
    return np.asarray(fn(x.ravel())).reshape(x.shape)
