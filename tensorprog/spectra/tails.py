r"""Recurrence coefficients continued to infinity: what their asymptotics are, and which fit.

If the continuous part fills one interval and behaves like a power at its ends, the coefficients tend to constants,
exponentially fast for analytic densities with square-root edges, like 1/k^2 for other powers. At a hard edge at 0 the
Stieltjes coefficients are simpler: with ``a_k = s_{2k} + s_{2k+1}``, ``b_k = s_{2k-1} s_{2k}`` they tend to a quarter
of the upper edge, a density like ``x^-p`` near 0 showing as ``s_k ~ s + (-1)^k c / k``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tensorprog.spectra.jacobi import Jacobi

#: Coefficients are continued by formula up to here, and are constant from here on.
TOTAL = 2000

#: Coefficients missed by less are constant up to rounding; an edge this near 0 (relative) may be at 0.
_CONSTANT, _NEAR = 1e-12, 1e-3

Basis = tuple[tuple[int, int], ...]  # (power of 1/k, whether with alternating sign)
_SOFT: tuple[Basis, ...] = (((0, 0),), ((0, 0), (2, 0)), ((0, 0), (2, 0), (3, 0)), ((0, 0), (2, 0), (3, 0), (4, 0)))
_HARD: tuple[Basis, ...] = (((0, 0),), ((0, 0), (1, 1)), ((0, 0), (1, 1), (2, 0)), ((0, 0), (1, 1), (2, 0), (2, 1)),
                            ((0, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)))


@dataclass(frozen=True)
class Tail:
    """A rule for continuing coefficients.

    Args:
        bases: the powers that are fitted to the last coefficients: of a and of b, or of s alone at a hard edge.
        missed: by how much the rule, fitted to all but the last few, misses these, relative to the interval's length.
    """

    bases: tuple[Basis, ...]
    missed: float

    @property
    def is_hard(self) -> bool:
        """Whether the lower edge is exactly 0."""
        return len(self.bases) == 1

    def continued(self, found: Jacobi) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Return a, b (beside the diagonal, not squared) up to ``TOTAL``, and the constants from there on."""
        a, b = _columns(found)
        far = np.arange(TOTAL, dtype=float)
        if self.is_hard:
            s = _stieltjes(found)
            rest = _fit(s, 1.0, self.bases[0])
            s = np.append(s, rest(np.arange(len(s), 2 * TOTAL + 1, dtype=float)))
            limit = float(rest(np.array([1e9]))[0])
            more_a = np.append(s[0], s[1:-1:2] + s[2::2])
            more_b = np.sqrt(np.maximum(s[0:-1:2] * s[1::2], 0.0))
            limits = 2 * limit, limit
        else:
            rules = _fit(a, 0.5, self.bases[0]), _fit(b, 1.0, self.bases[1])
            more_a, more_b = rules[0](far), rules[1](far)
            limits = float(more_a[-1]), float(more_b[-1])
        return np.append(a, more_a[len(a):TOTAL]), np.append(b, more_b[len(b):TOTAL]), *limits


def tail(found: Jacobi) -> Tail:
    """Return the rule that foretells the last coefficients best.

    Example:
        >>> from math import comb
        >>> from tensorprog.spectra.jacobi import jacobi
        >>> semicircle = jacobi([1, 0, 1, 0, 2, 0, 5, 0, 14, 0, 42, 0, 132])
        >>> products = jacobi([comb(3 * k, k) // (2 * k + 1) for k in range(16)])
        >>> [(t.is_hard, bool(t.missed < 1e-4)) for t in (tail(semicircle), tail(products))]
        [(False, True), (True, True)]

    Source: vanassche1987asymptotics.
    """
    a, b = _columns(found)
    soft = [_best(a, 0.5, _SOFT, 2), _best(b, 1.0, _SOFT, 2)]
    rule = Tail(tuple(basis for _, basis in soft), max(missed for missed, _ in soft) / (4 * b[-1]))
    s = _stieltjes(found)
    if len(s) and (s > 0).all():
        missed, basis = _best(s, 1.0, _HARD, 3)
        hard = Tail((basis,), missed / (4 * s[-1]))
        _, _, middle, quarter = rule.continued(found)
        # a density that diverges at 0 must know exactly where, and coefficients that are not constant leave room
        at_zero = abs(middle - 2 * quarter) < _NEAR * quarter and rule.missed > _CONSTANT and hard.missed < _NEAR
        if at_zero or hard.missed < rule.missed:
            return hard
    return rule


def _columns(found: Jacobi) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(x) for x in found.a]), np.sqrt([float(x) for x in found.b])


def _stieltjes(found: Jacobi) -> np.ndarray:
    """Return the coefficients s_1, s_2, ...; empty if one is 0, so that the measure is not one on the half-line."""
    out = [found.a[0]]
    for k in range(len(found.b)):
        if out[-1] == 0:
            return np.array([])
        out.append(found.b[k] / out[-1])
        if k + 1 < len(found.a):
            out.append(found.a[k + 1] - out[-1])
    return np.array([float(x) for x in out])


def _fit(values: np.ndarray, shift: float, basis: Basis) -> Callable[[np.ndarray], np.ndarray]:
    """Return the combination of a basis, in k = i + shift, that fits the last coefficients."""

    def design(i: np.ndarray) -> np.ndarray:
        return np.stack([(i + shift) ** -p * np.where(i % 2 == 0, 1.0, -1.0) ** odd for p, odd in basis], axis=-1)

    window = max(len(basis) + 1, len(values) // 2)
    i = np.arange(len(values), dtype=float)[-window:]
    weights = np.linalg.lstsq(design(i), values[-window:], rcond=None)[0]
    return lambda far: design(far) @ weights


def _best(c: np.ndarray, shift: float, bases: tuple[Basis, ...], held: int) -> tuple[float, Basis]:
    """Return by how much the best continuation of all but the last ``held`` misses these, and its basis."""
    last = np.arange(len(c) - held, len(c), dtype=float)
    found = [(float(np.abs(_fit(c[:-held], shift, basis)(last) - c[-held:]).max()), basis) for basis in bases
             if len(c) >= len(basis) + 2 + held]
    # a longer rule must earn its place: rounding alone decides between rules that are both exact
    return min(found, key=lambda m: (m[0] + 1e-14 * np.abs(c).max()) * 2 ** len(m[1]), default=(np.inf, bases[0]))
