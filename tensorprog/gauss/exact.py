"""Gaussian expectations in closed form, by the pieces that nonlinearities declare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import reduce
from itertools import product
from math import prod
from typing import Any

from tensorprog.atoms import pieces as pc
from tensorprog.errors import NotCoveredError
from tensorprog.gauss.chain import Chain, Number, canonical, exact
from tensorprog.gauss.orthant import ONE, ZERO, Complex, DivergentError, Law, Masses, NoClosedFormError, add, times
from tensorprog.gauss.wick import moment

#: More products of pieces than these are left to quadrature.
MANY = 4096
#: Formulas of the tilted covariance with more operations than these get a name.
LONG = 80


def expect(mean: Sequence[Number], cov: Sequence[Sequence[Number]], powers: Sequence[int],
           functions: Sequence[Sequence[Any]], chain: Chain, *,
           deltas: Sequence[Sequence[Number]] | None = None) -> Number | None:
    r"""Return ``E[prod_i l_i^{p_i} prod_{f in functions[i]} f(l_i) prod_{t in deltas[i]} delta(l_i - t)]``, or None.

    The l_i are jointly Gaussian. Nonlinearities are sums of polynomials times exponentials and gates; exponentials tilt
    the Gaussian, smooth gates are steps blurred by noise of their own, powers are integrated by parts, and the
    probabilities that remain have closed forms for up to three centred gates that depend on each other, or one that is
    not centred. Independent blocks multiply; a block that is odd under a flip of all its forms is 0 whatever its
    functions; constant forms are put into their functions' formulas.

    Args:
        mean: K Numbers.
        cov: K x K Numbers, positive semidefinite; forms may be repeated, dependent or constant.
        powers: K whole numbers >= 0.
        functions: K tuples of unary records, several on one form allowed.
        chain: decides zeros and signs; long intermediate formulas get their names there.
        deltas: K tuples of Numbers t, a factor ``delta(l_i - t)`` each (weak derivatives of jumps). A function that
            jumps at t counts there with the mean of its two sides.

    Returns:
        A Fraction, or an exact sympy expression; None if there is no closed form here.

    Raises:
        NotCoveredError: the expectation diverges, or its deltas have no product.

    Example:
        >>> from tensorprog.atoms.registry import nonlinearity
        >>> relu, erf, one, half = nonlinearity("relu"), nonlinearity("erf"), Fraction(1), Fraction(1, 2)
        >>> expect([0, 0], [[one, half], [half, one]], [0, 0], [(erf,), (erf,)], Chain())
        2*asin(1/3)/pi
        >>> expect([0], [[one]], [0], [(relu, relu)], Chain()), expect([0], [[one]], [1], [(erf,)], Chain())
        (Fraction(1, 2), 2*sqrt(3)/(3*sqrt(pi)))

    Source: cho2009kernel, williams1997computing, price1958useful.
    """
    m, c = [canonical(x) for x in mean], [[canonical(x) for x in row] for row in cov]
    points = [tuple(canonical(t) for t in ts) for ts in deltas] if deltas is not None else [()] * len(m)
    used = [i for i in range(len(m)) if powers[i] or functions[i] or points[i]]
    constant, live = ONE, []
    try:
        for i in used:
            if not chain.is_zero(c[i][i]):
                live.append(i)
            elif points[i]:
                raise NotCoveredError(f"delta(l_{i})", m[i], "a delta of a constant has no expectation", "drop it")
            else:
                constant *= _at(m[i], powers[i], functions[i])
    except NoClosedFormError:
        return None
    values = [_block([m[i] for i in b], [[c[i][j] for j in b] for i in b], tuple(powers[i] for i in b),
                     [tuple(functions[i]) for i in b], [points[i] for i in b], chain) for b in _blocks(live, c, chain)]
    known = [v for v in values if v is not None]
    if any(isinstance(v, Fraction) and not v for v in known):
        return ZERO
    return canonical(prod(known, start=constant)) if len(known) == len(values) else None


def _blocks(forms: list[int], cov, chain: Chain) -> Iterator[list[int]]:
    left = list(forms)
    while left:
        block = [left.pop(0)]
        for i in block:
            joined = [j for j in left if not chain.is_zero(cov[i][j])]
            block += joined
            left = [j for j in left if j not in joined]
        yield sorted(block)


def _at(x: Number, power: int, functions: Sequence[Any]) -> Number:
    """Return the value at a constant, from the functions' formulas."""
    value: Number = x**power if power else ONE
    for f in functions:
        try:
            factor = canonical(f.expression(exact(x)))
        except (NotCoveredError, AttributeError):
            raise NoClosedFormError from None
        if not isinstance(factor, Fraction) and factor.is_finite is False:
            raise NoClosedFormError
        value *= factor
    return value


def _block(mean, cov, powers, functions, points, chain: Chain) -> Number | None:
    centred = all(map(chain.is_zero, mean))
    if centred and not any(map(any, points)) and _is_odd(powers, functions):
        return ZERO
    try:
        return _closed_form(mean, cov, powers, functions, points, chain)
    except DivergentError:
        fast = [f.name for fs in functions for f in fs if f.growth == "faster"]
        if not fast:
            return None  # gates cut the terms off
        raise NotCoveredError(" ".join(fast), cov, "its Gaussian expectation diverges",
                              "this needs a smaller variance, or a function that grows less") from None
    except NoClosedFormError:
        return None


def _is_odd(powers, functions) -> bool:
    flips = sum(powers)
    for f in (f for fs in functions for f in fs):
        parity = getattr(f, "parity", None)
        if parity is None or getattr(f, "domain", "") != "real" or f.growth == "faster":
            return False
        flips += parity == "odd"
    return flips % 2 == 1


def _closed_form(mean, cov, powers, functions, points, chain: Chain) -> Number:
    if not any(functions) and not any(points):
        return moment(powers, mean, cov)
    size, constant, parts, left = len(mean), ONE, [], list(powers)
    for i, fs in enumerate(functions):
        if points[i]:
            t = points[i][0]
            plain = [f for f in fs if isinstance(t, Fraction) and t not in getattr(f, "jumps", (t,))]
            constant *= _at(t, powers[i], plain)
            left[i], fs = 0, [f for f in fs if f not in plain]
        if any(getattr(f, "pieces", None) is None for f in fs):
            raise NoClosedFormError
        parts.append(reduce(pc.multiply, (f.pieces for f in fs), pc.piece(ONE)))
    if prod(map(len, parts)) > MANY:
        raise NoClosedFormError
    laws: dict[tuple, tuple[Law, Number, Complex]] = {}
    sums: dict[Number, Number] = {}
    for factors in product(*(p.items() for p in parts)):
        kinds = [k for k, _ in factors]
        rates = tuple((k.linear, k.wave, k.quadratic) for k in kinds)
        turned = next((k.wave for k in kinds if k.wave), ZERO)
        if turned < 0:
            continue  # the complex conjugate of a term that counts twice
        if rates not in laws:
            laws[rates] = _tilt(mean, cov, rates, chain)
        law, exponent, factor = laws[rates]
        gates = tuple(sorted(law.gate(i, t, v, copy) for i, k in enumerate(kinds)
                             for copy, (t, v) in enumerate(k.gates)))
        where = tuple(sorted(law.gate(i, t, ZERO) for i, ts in enumerate(points) for t in ts))
        total: Masses = {}
        for term in product(*(tuple(enumerate(coefs)) for _, coefs in factors)):
            coef = prod((c for _, c in term), start=ONE)
            if coef:
                exponents = tuple(left[i] + term[i][0] for i in range(size))
                for weight, some in law.resolve(gates, ()):
                    add(total, coef * weight, law.moment(exponents, some, where))
        value = _real_part(law, total, factor, sum(k.turn for k in kinds) % 4)
        unit = _unit(sum(k.two for k in kinds), sum(k.pi for k in kinds)) * (2 if turned else 1)
        sums[exponent] = sums.get(exponent, ZERO) + unit * value
    return canonical(constant * _collected(sums))


def _real_part(law: Law, total: Masses, factor: Complex, turn: int) -> Number:
    """Return the real part of ``i^turn factor total``, formulas put back."""
    value: Number = ZERO
    for (gates, s, t), coef in total.items():
        if not law.is_zero(coef):
            k = (turn + t) % 4  # the real parts of i^k (x + i y) are x, -y, -x, y
            if part := times(law.mass(gates, s), factor)[k % 2]:
                value += law.formula((coef if k in (0, 3) else -coef) * part)
    return value


def _unit(two: int, pi: int) -> Number:
    if two % 2 == 0 and not pi:
        return Fraction(2) ** (two // 2)
    import sympy

    return sympy.sqrt(2) ** two * sympy.sqrt(sympy.pi) ** pi


def _collected(sums: dict[Number, Number]) -> Number:
    """Return ``sum_e sums[e] exp(e)``; two of equal or opposite coefficients become a cosh or a sinh."""
    import sympy

    left = {e: c for e, c in sums.items() if c}
    total: Number = left.pop(ZERO, ZERO)
    while left:
        e, c = left.popitem()
        e, sign = exact(e), 0
        for other, d in left.items():
            sign = 1 if d == c else -1 if d == -c else 0
            if sign:
                del left[other]
                middle, half = (e + exact(other)) / 2, (e - exact(other)) / 2
                # The variances are in the mean of the two: what is left is the covariance.
                fn = sympy.cosh if sign > 0 else sympy.sinh
                total += 2 * c * sympy.exp(sympy.expand(middle)) * fn(sympy.expand(half))
                break
        if not sign:
            total += c * sympy.exp(e)
    return total


# ------------------------------------------------------------------------------------------------- tilting


def _tilt(mean, cov, rates, chain: Chain) -> tuple[Law, Number, Complex]:
    """Return the law under which ``exp(sum_i (a_i + i w_i) l_i + q_i l_i^2)`` is taken, and that factor's size.

    With l = m + y and b = a + 2 Q m the exponent is ``a m + m Q m + (b + i w) y + y Q y``: y has covariance
    ``(1 - 2 C Q)^-1 C`` under it, the normalization is ``det(1 - 2 C Q)^(-1/2)``.
    """
    n = len(mean)
    a, w, q = ([r[i] for r in rates] for i in range(3))
    if not any(map(any, rates)):
        return Law(mean, [ZERO] * n, cov, chain), ZERO, (ONE, ZERO)
    det, tilted = _squeeze(cov, q, chain) if any(q) else (ONE, cov)
    b = [a[i] + 2 * q[i] * mean[i] for i in range(n)]
    push, wave = _apply(tilted, b), _apply(tilted, w)
    exponent = _dot(a, mean) + _dot([x * y for x, y in zip(q, mean, strict=True)], mean)
    exponent = canonical(exponent + (_dot(b, push) - _dot(w, wave)) / 2)
    phase, size = canonical(_dot(w, mean) + _dot(w, push)), _inverse_root(det)
    law = Law([x + y for x, y in zip(mean, push, strict=True)], wave, tilted, chain, any(q))
    if not phase:
        return law, exponent, (size, ZERO)
    import sympy

    return law, exponent, (size * sympy.cos(exact(phase)), size * sympy.sin(exact(phase)))


def _inverse_root(det: Number) -> Number:
    if det == 1:
        return ONE
    import sympy

    return canonical(1 / sympy.sqrt(exact(det)))


def _dot(x, y) -> Number:
    return sum((u * v for u, v in zip(x, y, strict=True) if u and v), ZERO)


def _apply(matrix, x) -> list[Number]:
    return [_dot(row, x) for row in matrix]


def _squeeze(cov, q: list[Fraction], chain: Chain) -> tuple[Number, list[list[Number]]]:
    """Return ``det(1 - 2 C Q)`` and ``(1 - 2 C Q)^-1 C``, by cofactors: expanded, they show what they are."""
    n = len(cov)
    matrix = [[(ONE if i == j else ZERO) - 2 * cov[i][j] * q[j] for j in range(n)] for i in range(n)]
    grown: list[int] = []
    for i in sorted((i for i in range(n) if q[i]), key=lambda i: q[i]):
        # Adding the largest exponents last, the expectation exists if every determinant on the way is positive.
        grown.append(i)
        if q[i] > 0 and chain.sign(_short(_det([[matrix[r][s] for s in grown] for r in grown]), chain)) <= 0:
            raise DivergentError
    det = _short(_det(matrix), chain)
    out: list[list[Number]] = [[ZERO] * n for _ in range(n)]
    for i in range(n):
        for j in range(i, n):
            # Cramer's rule: the solution of (1 - 2 C Q) x = C e_j.
            replaced = [[cov[r][j] if s == i else matrix[r][s] for s in range(n)] for r in range(n)]
            out[i][j] = out[j][i] = chain.name(_short(_det(replaced), chain) / det, "c", small=LONG)
    return det, out


def _short(x: Number, chain: Chain) -> Number:
    return x if isinstance(x, Fraction) else chain.name(x.expand(), "c", small=LONG)


def _det(matrix: list[list[Number]]) -> Number:
    if len(matrix) == 1:
        return matrix[0][0]
    total: Number = ZERO
    for j, x in enumerate(matrix[0]):
        if x:
            total += (-1) ** j * x * _det([row[:j] + row[j + 1:] for row in matrix[1:]])
    return total
