"""Polynomials of Gaussian variables cut off by gates: expectations by integration by parts, down to orthants.

With y jointly Gaussian and gates step(g_k), g_k Gaussian too,

    E[y_i F] = E[y_i] E[F] + sum_j Cov(y_i, y_j) E[dF/dy_j],    d step(g) = delta(g),

takes one power of y away at a time; a delta conditions the Gaussian. What is left are probabilities that a few g_k are
positive. Covariances and means given that the g_s, s in S, vanish are quotients of minors of the covariance of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

from tensorprog.errors import NotCoveredError
from tensorprog.gauss.chain import Chain, Number, exact

ZERO, ONE, HALF = Fraction(0), Fraction(1), Fraction(1, 2)
#: Rows and columns of the bordered minors: the real and the imaginary parts of the means.
REAL, IMAGINARY = -1, -2

Complex = tuple[Number, Number]
Ids = tuple[int, ...]


class NoClosedFormError(Exception):
    """Inside the engine: this expectation has no closed form that is known here."""


class Law:
    """A Gaussian vector (its mean may be complex, where a wave has shifted it) and gates on its coordinates.

    Args:
        mean, imaginary, cov: of the K coordinates, none of them constant.
        chain: decides what is zero, and signs.
    """

    def __init__(self, mean: Sequence[Number], imaginary: Sequence[Number], cov, chain: Chain):
        self.mean, self.imaginary, self.cov, self.chain = list(mean), list(imaginary), cov, chain
        self.size = len(self.mean)
        self.at, self.noise = list(range(self.size)), [ZERO] * self.size
        self._ids: dict[tuple, int] = {}
        self._minors: dict[tuple[Ids, Ids], Number] = {}
        self._zeros: dict[Any, bool] = {}
        self._moments: dict[tuple[Ids, Ids, Ids], Complex] = {}
        self._resolved: dict[tuple[Ids, Ids], list[tuple[Fraction, Ids]]] = {}

    def gate(self, i: int, threshold: Fraction, variance: Fraction, copy: int = 0) -> int:
        """Return the number of the variable ``l_i - N(threshold, variance)``; copies differ in their noise."""
        key = (i, threshold, variance, copy)
        if key not in self._ids:
            self._ids[key] = len(self.at)
            self.at.append(i)
            self.noise.append(variance)
            self.mean.append(self.mean[i] - threshold)
            self.imaginary.append(self.imaginary[i])
        return self._ids[key]

    # ------------------------------------------------------------------------------------------ covariances

    def is_zero(self, x: Number) -> bool:
        """Return whether a number is zero; asked once."""
        if isinstance(x, Fraction):
            return not x
        if x not in self._zeros:
            self._zeros[x] = self.chain.is_zero(x)
        return self._zeros[x]

    def sign(self, x: Number) -> int:
        """Return the sign; an unknown one leaves no closed form."""
        try:
            return self.chain.sign(x)
        except NotCoveredError:
            raise NoClosedFormError from None

    def minor(self, rows: Ids, columns: Ids) -> Number:
        """Return the minor of the covariance matrix, bordered by the means (their corner is zero)."""
        if not rows:
            return ONE
        if len(rows) == 1:
            return self._entry(rows[0], columns[0])
        if (rows, columns) not in self._minors:
            total: Number = ZERO
            for j, b in enumerate(columns):
                entry = self._entry(rows[0], b)
                if entry:
                    total += (-1) ** j * entry * self.minor(rows[1:], columns[:j] + columns[j + 1:])
            self._minors[rows, columns] = total
        return self._minors[rows, columns]

    def _entry(self, a: int, b: int) -> Number:
        if a < 0 or b < 0:
            return ZERO if a < 0 and b < 0 else (self.mean if min(a, b) == REAL else self.imaginary)[max(a, b)]
        entry = self.cov[self.at[a]][self.at[b]]
        return entry + self.noise[a] if a == b and self.noise[a] else entry

    def given(self, s: Ids, a: int, b: int) -> Number:
        """Return the covariance of two variables (or the mean of one) given that those in s vanish."""
        top = self.minor((*s, a), (*s, b))
        if not s or self.is_zero(top):
            return top if not s else ZERO
        return top / self.minor(s, s)

    # -------------------------------------------------------------------------------------------- moments

    def moment(self, powers: Ids, gates: Ids, s: Ids = ()) -> Complex:
        """Return ``E[prod_i y_i^{powers_i} prod_{k in gates} step(g_k) prod_{k in s} delta(g_k)]``.

        Raises:
            NoClosedFormError: what is left is no orthant probability with a closed form.
        """
        key = (powers, gates, s)
        if key not in self._moments:
            self._moments[key] = self._moment(powers, gates, s)
        return self._moments[key]

    def _moment(self, powers: Ids, gates: Ids, s: Ids) -> Complex:
        branches = self.resolve(gates, s)
        if branches != [(ONE, gates)]:
            return _sum([_times((w, ZERO), self.moment(powers, g, s)) for w, g in branches])
        i = next((i for i, p in enumerate(powers) if p), None)
        if i is None:
            return self._mass(gates, s)
        rest = _less(powers, i)
        terms = []
        shift = self.given(s, i, REAL), self.given(s, i, IMAGINARY)
        if not (self.is_zero(shift[0]) and self.is_zero(shift[1])):
            terms.append(_times(shift, self.moment(rest, gates, s)))
        for j, p in enumerate(rest):
            if p and not self.is_zero(c := self.given(s, i, j)):
                terms.append(_times((p * c, ZERO), self.moment(_less(rest, j), gates, s)))
        for k in gates:
            if not self.is_zero(c := self.given(s, i, k)):
                others = tuple(g for g in gates if g != k)
                terms.append(_times((c, ZERO), self.moment(rest, others, tuple(sorted((*s, k))))))
        return _sum(terms)

    def resolve(self, gates: Ids, s: Ids) -> list[tuple[Fraction, Ids]]:
        """Return the product of the steps as a sum of products in which none is constant and no two are parallel."""
        if (gates, s) not in self._resolved:
            self._resolved[gates, s] = self._resolve(gates, s)
        return self._resolved[gates, s]

    def _resolve(self, gates: Ids, s: Ids) -> list[tuple[Fraction, Ids]]:
        without = {k: tuple(g for g in gates if g != k) for k in gates}
        hard = [k for k in gates if not self.noise[k]]
        for k in hard if s else ():
            if self.is_zero(self.minor((*s, k), (*s, k))):
                if not self.is_zero(self.given(s, k, IMAGINARY)):
                    raise NoClosedFormError
                # On its jump a step counts one half: the mean of its sides.
                weight = {1: ONE, 0: HALF, -1: ZERO}[self.sign(self.given(s, k, REAL))]
                return [(weight * w, g) for w, g in self.resolve(without[k], s)] if weight else []
        for a, b in combinations(hard, 2):
            if self.is_zero(self.minor((*s, a, b), (*s, a, b))):
                slope = self.given(s, a, b) / self.given(s, a, a)
                if not self.is_zero(self.given(s, b, IMAGINARY) - slope * self.given(s, a, IMAGINARY)):
                    raise NoClosedFormError
                # g_b = slope g_a + offset
                offset = self.sign(self.given(s, b, REAL) - slope * self.given(s, a, REAL))
                if self.sign(slope) > 0:
                    return self.resolve(without[b] if offset >= 0 else without[a], s)
                if offset <= 0:
                    return []
                # Between two thresholds: step(a) step(b) = step(a) + step(b) - 1.
                neither = tuple(g for g in gates if g not in (a, b))
                return [(sign * w, g) for sign, part in ((ONE, without[a]), (ONE, without[b]), (-ONE, neither))
                        for w, g in self.resolve(part, s)]
        return [(ONE, gates)]

    # --------------------------------------------------------------------------------------- probabilities

    def _mass(self, gates: Ids, s: Ids) -> Complex:
        """Return ``E[prod step prod delta]``: the density at g_s = 0 times a probability."""
        value: Complex = (self._density(s), ZERO)
        left = list(gates)
        while left:
            block = [left.pop()]
            for a in block:
                joined = [b for b in left if not self.is_zero(self.given(s, a, b))]
                block += joined
                left = [b for b in left if b not in joined]
            value = _times(value, self._probability(tuple(sorted(block)), s))
        return value

    def _density(self, s: Ids) -> Number:
        if not s:
            return ONE
        import sympy

        det = self.minor(s, s)
        if self.is_zero(det):
            raise NotCoveredError("delta", len(s), "deltas of dependent forms have no product", "use distinct forms")
        value = 1 / (sympy.sqrt(exact(det)) * sympy.sqrt(2 * sympy.pi) ** len(s))
        if all(self.is_zero(part[k]) for part in (self.mean, self.imaginary) for k in s):
            return value
        real, imaginary, mixed = (self.minor((*s, a), (*s, b)) / det
                                  for a, b in ((REAL, REAL), (IMAGINARY, IMAGINARY), (REAL, IMAGINARY)))
        if not self.is_zero(mixed):
            raise NoClosedFormError
        return value * sympy.exp(exact((real - imaginary) / 2))

    def _probability(self, block: Ids, s: Ids) -> Complex:
        import sympy

        means = [self.given(s, k, REAL) for k in block]
        centred = all(map(self.is_zero, means))
        waves = [self.given(s, k, IMAGINARY) for k in block]
        still = all(map(self.is_zero, waves))
        if len(block) == 1 and (centred or still):
            if centred and still:
                return HALF, ZERO
            spread = sympy.sqrt(2 * exact(self.given(s, block[0], block[0])))
            if still:
                return (1 + sympy.erf(exact(means[0]) / spread)) / 2, ZERO
            return HALF, sympy.erfi(exact(waves[0]) / spread) / 2
        if len(block) > 3 or not centred or not still:
            raise NoClosedFormError
        angles = sympy.Add(*(sympy.asin(self._correlation(a, b, s)) for a, b in combinations(block, 2)))
        return exact(Fraction(1, 2 ** len(block))) + angles / (2 ** (len(block) - 1) * sympy.pi), ZERO

    def _correlation(self, a: int, b: int, s: Ids):
        import sympy

        aa, ab, bb = (exact(self.minor((*s, x), (*s, y))) for x, y in ((a, a), (a, b), (b, b)))
        return ab / sympy.sqrt(aa * bb)


def _less(powers: Ids, i: int) -> Ids:
    return (*powers[:i], powers[i] - 1, *powers[i + 1:])


def _times(x: Complex, y: Complex) -> Complex:
    (a, b), (c, d) = x, y
    if not b and not d:
        return a * c, ZERO
    return a * c - b * d, a * d + b * c


def _sum(terms: Sequence[Complex]) -> Complex:
    import sympy

    parts = []
    for part in zip(*terms, strict=True):
        rational = sum((x for x in part if isinstance(x, Fraction)), ZERO)
        others = [x for x in part if not isinstance(x, Fraction)]
        parts.append(sympy.Add(exact(rational), *others) if others else rational)
    return (parts[0], parts[1]) if parts else (ZERO, ZERO)
