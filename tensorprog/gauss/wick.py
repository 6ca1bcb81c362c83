"""Moments of jointly Gaussian variables: Wick's formula, in whole numbers where everything is rational."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tensorprog.gauss.chain import Number, canonical


def moment(powers: Sequence[int], mean: Sequence[Number], cov: Sequence[Sequence[Number]]) -> Number:
    """Return ``E prod_i l_i^{p_i}`` of jointly Gaussian l_1, ..., l_K.

    By ``E l_i F = m_i E F + sum_j C_ij E dF/dl_j``, every monomial once.

    Args:
        powers: K whole numbers >= 0.
        mean: K Numbers.
        cov: K x K Numbers, symmetric.

    Example:
        >>> half = Fraction(1, 2)
        >>> moment([2, 2], [Fraction(0)] * 2, [[Fraction(1), half], [half, Fraction(1)]])
        Fraction(3, 2)

    Source: isserlis1918formula.
    """
    used = [i for i, p in enumerate(powers) if p]
    m, c = [mean[i] for i in used], [[cov[i][j] for j in used] for i in used]
    p = tuple(powers[i] for i in used)
    entries = [*m, *(x for row in c for x in row)]
    if not all(isinstance(x, Fraction) for x in entries):
        found = _moment(p, m, c, {})
        return canonical(found if isinstance(found, int | Fraction) else found.expand())
    if not any(m) and sum(p) % 2:
        return Fraction(0)
    # In units of 1/d every entry is whole: of l if there is a mean, of l^2 if there is none.
    d = math.lcm(*(x.denominator for x in entries))
    scale = d * d if any(m) else d
    whole = [[int(scale * x) for x in row] for row in c]
    found = _moment(p, [int(d * x) for x in m], whole, {})
    return Fraction(found, d ** sum(p) if any(m) else d ** (sum(p) // 2))


def _moment(powers: tuple[int, ...], mean: list, cov: list[list], known: dict[tuple[int, ...], Any]) -> Any:
    if powers in known:
        return known[powers]
    first = next((i for i, p in enumerate(powers) if p), None)
    if first is None:
        return 1
    rest = list(powers)
    rest[first] -= 1
    total = mean[first] * _moment(tuple(rest), mean, cov, known) if mean[first] else 0
    row = cov[first]
    for j in range(first, len(rest)):
        if rest[j] and row[j]:
            weight = rest[j]
            rest[j] -= 1
            total += weight * row[j] * _moment(tuple(rest), mean, cov, known)
            rest[j] += 1
    known[powers] = total
    return total
