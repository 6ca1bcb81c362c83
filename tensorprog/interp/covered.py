"""What the Master Theorem covers: growth within exp(C |x|^(2-e)), and arguments that stay inside a function's domain.

Two facts are followed through a program in normal form: like which power of Gaussians a variable grows (None: like an
exponential of them), and whether it is nonnegative, or above a positive constant.

Source: yang2019wide (controlled functions); yang2020matrix (polynomially bounded ones).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from tensorprog.atoms.diff import Diff
from tensorprog.errors import NotCoveredError
from tensorprog.interp.rules import Rules
from tensorprog.program.instructions import (
    Constant,
    Input,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Outer,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

covered = Rules("covered")


@dataclass(frozen=True, slots=True)
class Bound:
    """``degree``: |Z| grows like that power of Gaussians, None: exponentially; ``low``: a lower bound, None if none."""

    degree: Fraction | None
    low: Fraction | None = None
    number: bool = False


class Covered:
    """Reads a program in normal form and refuses the first line that the theorem does not cover.

    Raises:
        NotCoveredError: with the line, the function, why, and what to do.

    Example:
        >>> from tensorprog.program.text import parse
        >>> Covered(parse("dim n\\nvector x : n\\ny = exp(x**2)"))
        Traceback (most recent call last):
        tensorprog.errors.NotCoveredError: line y = exp(_1): its argument grows like the power 2 of ...
    """

    def __init__(self, program: Program):
        self.program = program
        self.bounds: dict[str, Any] = {}
        self.fed: dict[tuple[str, bool], list[Bound]] = {}
        for line in program.lines:
            self.bounds[line.out] = covered[line](self, line)


def largest(degrees) -> Fraction | None:
    """Return the largest degree; None is exponential."""
    degrees = list(degrees)
    return None if None in degrees else max(degrees, default=Fraction(0))


@covered(Input)
def _input(self: Covered, line: Input):
    if isinstance(line.type, MatrixType):
        return None
    if isinstance(line.law, Constant):
        value = line.law.value
        free = bool(getattr(value.number, "free_symbols", ()))
        low = Fraction(0) if free else Fraction(float(value.number)).limit_denominator(10**12)
        return Bound(Fraction(0), low, number=True)
    return Bound(Fraction(1))


@covered(MatMul)
def _matmul(self: Covered, line: MatMul):
    x = self.bounds[line.vector]
    before = self.fed.get((line.matrix, not line.transposed), [])
    self.fed.setdefault((line.matrix, line.transposed), []).append(x)
    return Bound(largest([Fraction(1), *(b.degree for b in before)]))


@covered(Moment)
def _moment(self: Covered, line: Moment):
    bounds = [self.bounds[a] for a in line.args]
    even = all(line.args.count(a) % 2 == 0 or (b.low is not None and b.low >= 0)
               for a, b in zip(line.args, bounds, strict=True))
    return Bound(Fraction(0), Fraction(0) if even else None, number=True)


@covered(Nonlin)
def _nonlin(self: Covered, line: Nonlin):
    bounds = [self.bounds[a] for a in line.args]
    if isinstance(line.fn, Poly):
        return _polynomial(line.fn, bounds)
    fn = line.fn.fn if isinstance(line.fn, Diff) else line.fn
    k = fn.arity
    if isinstance(line.fn, Diff):  # x, then x + dx, whose lower bound is not known
        bounds = [Bound(largest([x.degree, d.degree]), None, x.number and d.number)
                  for x, d in zip(bounds[:k], bounds[k:], strict=True)]
    if not all(b.number for b in bounds):
        _check_domain(line, fn, bounds)
    degree = Fraction(0) if all(b.number for b in bounds) else _grown(line, fn, [b.degree for b in bounds])
    low = Fraction(0) if not isinstance(line.fn, Diff) and k == 1 and _nowhere_negative(fn) else None
    return Bound(degree, low, all(b.number for b in bounds))


def _polynomial(fn: Poly, bounds) -> Bound:
    degrees, low = [], Fraction(0)
    known = True
    for coef, powers in fn.terms:
        present = [(b, p) for b, p in zip(bounds, powers, strict=True) if p]
        inside = [b.degree for b, _ in present]
        degrees.append(None if None in inside else sum((b.degree * p for b, p in present), Fraction(0)))
        sign = getattr(coef.number, "is_positive", None)
        positive = coef.number > 0 if isinstance(coef.number, Fraction) else bool(sign)
        if positive and all(p % 2 == 0 or (b.low is not None and b.low >= 0) for b, p in present):
            if isinstance(coef.number, Fraction) and all(b.low is not None for b, _ in present):
                product = coef.number
                for b, p in present:
                    product *= b.low**p if p % 2 or b.low > 0 else 0
                low += product
        else:
            known = False
    return Bound(largest(degrees), low if known else _least(fn), all(b.number for b in bounds))


def _least(fn: Poly) -> Fraction | None:
    """Return a lower bound of a quadratic polynomial, whatever its arguments are; None if it has none."""
    k = fn.arity
    if any(sum(p) > 2 or not isinstance(c.number, Fraction) for c, p in fn.terms):
        return None
    square, linear, constant = np.zeros((k, k)), np.zeros(k), 0.0
    for coef, powers in fn.terms:
        inside = [i for i, p in enumerate(powers) for _ in range(p)]
        if len(inside) == 2:
            square[inside[0], inside[1]] += float(coef.number) / 2
            square[inside[1], inside[0]] += float(coef.number) / 2
        elif inside:
            linear[inside[0]] += float(coef.number)
        else:
            constant += float(coef.number)
    sizes, axes = np.linalg.eigh(square)
    tiny = 1e-12 * max(1.0, float(np.max(np.abs(square))))
    along = axes.T @ linear
    if np.any(sizes < -tiny) or np.any(np.abs(along[sizes <= tiny]) > 1e-9):
        return None
    rest = sizes > tiny
    return Fraction(constant - float(np.sum(along[rest] ** 2 / (4 * sizes[rest]))) - 1e-9)


def _check_domain(line: Nonlin, fn, bounds) -> None:
    domain = getattr(fn, "domain", "real")
    if domain == "real":
        return
    low = bounds[0].low
    if low is None or low < 0 or (low == 0 and domain != "nonnegative"):
        raise NotCoveredError(spell(line), fn.name, "its argument is not known to stay away from the edge of the "
                              f"domain of {fn.name}, so moments need not exist", "write it as in 1/(1 + x^2)")


def _grown(line: Nonlin, fn, degrees) -> Fraction | None:
    growth, top = getattr(fn, "growth", "polynomial"), largest(degrees)
    if growth == "polynomial":
        infinity = getattr(fn, "infinity", None)
        if infinity is None:  # bounded by a polynomial, of a degree that is not known
            return Fraction(0) if _bounded(fn) else None if top is None else top * 8
        return Fraction(0) if infinity <= 0 else None if top is None else top * Fraction(infinity)
    if growth == "exponential" and top is not None and top < 2:
        return None
    told = "exponentially" if top is None else f"like the power {top} of Gaussians"
    raise NotCoveredError(spell(line), fn.name, f"its argument grows {told}, and the Master Theorem covers growth "
                          "within exp(C |x|^(2-e))", "use a function of polynomial growth")


@lru_cache(maxsize=1024)
def _samples(fn: Any) -> np.ndarray:
    return _on(fn, np.linspace(-60, 60, 2401))


def _samples_near(fn: Any) -> np.ndarray:
    return _on(fn, np.linspace(-3, 3, 601))


def _on(fn: Any, grid: np.ndarray) -> np.ndarray:
    grid = grid if getattr(fn, "domain", "real") == "real" else grid[grid > 0]
    with np.errstate(all="ignore"):
        return np.asarray(fn.evaluate({}, {}, grid), float)


def _nowhere_negative(fn: Any) -> bool:
    return bool(np.all(_samples(fn) >= 0) and np.all(_samples_near(fn) >= 0))


def _bounded(fn: Any) -> bool:
    if fn.arity != 1:
        return False
    values = np.abs(_samples(fn))
    near = np.abs(_samples_near(fn))
    return bool(np.max(values) <= 4 * np.max(near) + 1e-9)


@covered(Outer)
def _outer(self: Covered, line: Outer):
    raise NotCoveredError(spell(line), line.out, "updates are written out before", "scalarize the program first")
