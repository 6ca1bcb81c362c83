"""Increments ``fn(x + dx) - fn(x)``: how a nonlinearity passes on a change of its argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tensorprog.atoms.function import Function
from tensorprog.errors import NotCoveredError
from tensorprog.exponents.affine import Values

#: Up to here the increment is the integral of the derivative; three Gauss nodes leave an error near SMALL^7/2016000.
SMALL = 0.02
_NODES = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5)
_WEIGHTS = (5 / 18, 8 / 18, 5 / 18)


@dataclass(frozen=True, slots=True)
class Diff(Function):
    """``Diff(fn)(x..., dx...) = fn(x + dx) - fn(x)``, of arity 2k for a function of k arguments.

    Small increments do not cancel: where all |dx| are small and no kink lies between, the value is
    ``sum_i dx_i * integral_0^1 (partial_i fn)(x + s dx) ds``, accurate to rounding relative to dx.

    Example:
        >>> from tensorprog.atoms.registry import nonlinearity
        >>> d = Diff(nonlinearity("tanh"))
        >>> d.arity, d.evaluate({}, {}, 1.0, 1e-20) > 4.19e-21, d.spelled("x", "dx")
        (2, True, 'diff_tanh(x, dx)')
    """

    fn: Function

    @property
    def name(self) -> str:
        """``diff_`` and the function's name."""
        return f"diff_{self.fn.name}"

    @property
    def arity(self) -> int:
        """Twice the function's."""
        return 2 * self.fn.arity

    @property
    def parity(self) -> str | None:
        """The parity in all arguments jointly: that of the function."""
        return getattr(self.fn, "parity", None)

    @property
    def degree(self):
        """The degree of homogeneity in all arguments jointly: that of the function."""
        return getattr(self.fn, "degree", None)

    def evaluate(self, sizes: Mapping[str, int], values: Values, *args):
        """Return the increment at arrays or floats ``x..., dx...``."""
        k = self.fn.arity
        x, dx = args[:k], args[k:]
        plain = self.fn.evaluate(sizes, values, *(a + d for a, d in zip(x, dx, strict=True))) - self.fn.evaluate(
            sizes, values, *x)
        if not getattr(self.fn, "has_slopes", False):
            return plain
        small = np.abs(dx[0]) <= SMALL
        for a, d in zip(x, dx, strict=True):
            small = small & (np.abs(d) <= self._reach(a))
            for kink in getattr(self.fn, "kinks", ()):
                small = small & ((a > float(kink)) == (a + d > float(kink))) & (a != float(kink))
        if np.ndim(plain) == 0:
            return self._integral(sizes, values, x, dx) if small else plain
        where = np.broadcast_to(small, plain.shape)
        if where.any():
            plain = np.array(plain)
            xs, ds = ([np.broadcast_to(a, plain.shape)[where] for a in part] for part in (x, dx))
            plain[where] = self._integral(sizes, values, xs, ds)
        return plain

    def _reach(self, a):
        # Near the edge of its domain (1/x, log) a function varies on the scale of its argument.
        return SMALL if getattr(self.fn, "domain", "real") == "real" else SMALL * np.minimum(1.0, np.abs(a))

    def _integral(self, sizes, values, x, dx):
        total = 0.0 * dx[0]
        for i, d in enumerate(dx):
            slope = self.fn.partial(i)
            if slope is None:
                continue
            for s, w in zip(_NODES, _WEIGHTS, strict=True):
                at = (a + s * e for a, e in zip(x, dx, strict=True))
                total = total + w * d * slope.evaluate(sizes, values, *at)
        return total

    def partial(self, i: int):
        """Raise NotCoveredError: programs differentiate before they take increments."""
        raise NotCoveredError(self.name, i, "an increment is not differentiated",
                              "differentiate the program, then unroll it")

    def spelled(self, *args: str) -> str:
        """Return the application in the text form: the function's own, with ``diff_`` before its name."""
        return f"diff_{self.fn.spelled(*args)}"
