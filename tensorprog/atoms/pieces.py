"""Functions as sums of polynomials times exponentials and gates: those with Gaussian expectations in closed form.

    phi(x) = sum_k  u_k P_k(x) exp((a_k + i w_k) x + q_k x^2) prod_j P(N(t_j, v_j) < x),

P_k a polynomial with rational coefficients. A gate with v = 0 is a step at t, one with v > 0 a Gaussian's distribution
function. relu(x) = x step(x), erf(x) = 2 P(N(0, 1/2) < x) - 1, sin(x) = (exp(ix) - exp(-ix))/2i. Sums, products and
derivatives (almost everywhere: no deltas) stay of this kind. At a jump the value is any between the two sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np

from tensorprog.atoms.special import cdf

Growth = Literal["polynomial", "exponential", "faster"]
ZERO, HALF = Fraction(0), Fraction(1, 2)


class Kind(NamedTuple):
    """What multiplies the polynomial: ``u exp((linear + i wave) x + quadratic x^2) prod gates``.

    ``gates`` are sorted pairs (t, v); the unit is ``u = 2^(two/2) pi^(pi/2) i^turn`` with ``two``, ``turn`` in {0, 1}.
    """

    linear: Fraction = ZERO
    wave: Fraction = ZERO
    quadratic: Fraction = ZERO
    gates: tuple[tuple[Fraction, Fraction], ...] = ()
    two: int = 0
    pi: int = 0
    turn: int = 0


#: Coefficients, that of x^0 first, by kind.
Pieces = Mapping[Kind, tuple[Fraction, ...]]


def piece(*coefficients: Fraction | int, two: int = 0, pi: int = 0, turn: int = 0, linear: Fraction | int = 0,
          wave: Fraction | int = 0, quadratic: Fraction | int = 0, gates=()) -> dict[Kind, tuple[Fraction, ...]]:
    """Return one piece; the coefficients are those of 1, x, x^2, ...

    >>> relu = piece(0, 1, gates=[(0, 0)])
    >>> values(relu, np.array([-2.0, 3.0]))
    array([0., 3.])
    """
    size = Fraction(2) ** (two // 2) * (-1) ** (turn % 4 // 2)
    pairs = tuple(sorted((Fraction(t), Fraction(v)) for t, v in gates))
    kind = Kind(Fraction(linear), Fraction(wave), Fraction(quadratic), pairs, two % 2, pi, turn % 2)
    return {kind: tuple(size * c for c in coefficients)}


def add(*terms: Pieces) -> dict[Kind, tuple[Fraction, ...]]:
    """Return the sum."""
    out: dict[Kind, list[Fraction]] = {}
    for kind, coefs in (item for t in terms for item in t.items()):
        total = out.setdefault(kind, [])
        total += [ZERO] * (len(coefs) - len(total))
        for i, c in enumerate(coefs):
            total[i] += c
    return {kind: _trimmed(coefs) for kind, coefs in out.items() if any(coefs)}


def _trimmed(coefs: list[Fraction]) -> tuple[Fraction, ...]:
    while not coefs[-1]:
        coefs.pop()
    return tuple(coefs)


def multiply(a: Pieces, b: Pieces) -> dict[Kind, tuple[Fraction, ...]]:
    """Return the product; of several steps the last one stays.

    >>> step = piece(1, gates=[(0, 0)])
    >>> multiply(step, step) == step
    True
    """
    products = []
    for k, c in a.items():
        for m, d in b.items():
            coefs = [ZERO] * (len(c) + len(d) - 1)
            for i, x in enumerate(c):
                for j, y in enumerate(d):
                    coefs[i + j] += x * y
            gates = k.gates + m.gates
            steps = [g for g in gates if not g[1]]
            products.append(piece(*coefs, two=k.two + m.two, pi=k.pi + m.pi, turn=k.turn + m.turn,
                                  linear=k.linear + m.linear, wave=k.wave + m.wave,
                                  quadratic=k.quadratic + m.quadratic,
                                  gates=[g for g in gates if g[1]] + ([max(steps)] if steps else [])))
    return add(*products)


def derivative(a: Pieces) -> dict[Kind, tuple[Fraction, ...]]:
    """Return the derivative almost everywhere.

    >>> derivative(piece(0, 1, gates=[(0, 0)])) == piece(1, gates=[(0, 0)])
    True
    """
    out: list[Pieces] = []
    for k, c in a.items():
        out.append({k: tuple(i * c[i] for i in range(1, len(c))) or (ZERO,)})
        out.append({k: tuple(k.linear * x for x in c)})
        out.append({k: (ZERO, *(2 * k.quadratic * x for x in c))})
        if k.wave:
            out.append(multiply({k: c}, piece(k.wave, turn=1)))
        for i, (t, v) in enumerate(k.gates):
            if v:
                out.append(multiply({k._replace(gates=k.gates[:i] + k.gates[i + 1:]): c}, density(t, v)))
    return add(*out)


def density(t: Fraction, v: Fraction) -> dict[Kind, tuple[Fraction, ...]]:
    """Return the density of N(t, v), for t = 0 and twice v a square of a rational, or such a square doubled."""
    if t:
        raise ValueError("smooth gates are centred")
    for two in (0, 1):
        w = 2 * v if two == 0 else v  # 2 v = r^2, or v = r^2
        r = Fraction(math.isqrt(w.numerator), math.isqrt(w.denominator))
        if r * r == w:
            return piece(1 / r, two=-two, pi=-1, quadratic=-1 / (2 * v))
    raise ValueError("a smooth gate's variance is a square, or half of one")


def values(a: Pieces, x: np.ndarray) -> np.ndarray:
    """Return the values at an array of floats."""
    total = np.zeros(x.shape, complex)
    for k, c in a.items():
        y = np.polynomial.polynomial.polyval(x, [float(v) for v in c]) * (2 ** (k.two / 2) * math.pi ** (k.pi / 2))
        exponent = float(k.linear) * x + float(k.quadratic) * x * x + 1j * float(k.wave) * x
        y = y * 1j**k.turn * np.exp(exponent)
        for t, v in k.gates:
            y = y * (cdf((x - float(t)) / math.sqrt(v)) if v else x > float(t))
        total = total + y
    return np.real(total)


def growth(a: Pieces) -> Growth:
    """Return "polynomial", "exponential" or "faster", by the largest exponent (gates may cut it off)."""
    if any(k.quadratic > 0 for k in a):
        return "faster"
    return "exponential" if any(k.linear and not k.quadratic for k in a) else "polynomial"
