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
from tensorprog.gauss.chain import Chain, Number, canonical, exact

ZERO, ONE, HALF = Fraction(0), Fraction(1), Fraction(1, 2)
#: Rows and columns of the bordered minors: the real and the imaginary parts of the means.
REAL, IMAGINARY = -1, -2

Complex = tuple[Number, Number]
Ids = tuple[int, ...]
#: A sum of masses: by gates, deltas and the power of i (0 or 1).
Masses = dict[tuple[Ids, Ids, int], Number]


class NoClosedFormError(Exception):
    """Inside the engine: this expectation has no closed form that is known here."""


class DivergentError(NoClosedFormError):
    """Inside the engine: one of the terms has no expectation."""


class Law:
    """A Gaussian vector (its mean may be complex, where a wave has shifted it) and gates on its coordinates.

    Args:
        mean, imaginary, cov: of the K coordinates, none of them constant.
        chain: decides what is zero, and signs.
        tilted: entries are quotients; minors are brought over one denominator.
    """

    def __init__(self, mean: Sequence[Number], imaginary: Sequence[Number], cov, chain: Chain, tilted: bool = False):
        self.mean, self.imaginary, self.cov, self.chain = list(mean), list(imaginary), cov, chain
        self.tilted = tilted
        self.size = len(self.mean)
        self.at, self.noise = list(range(self.size)), [ZERO] * self.size
        self._ids: dict[tuple, int] = {}
        self._minors: dict[tuple[Ids, Ids], Number] = {}
        self._named: dict[Any, Any] = {}
        self._formulas: dict[Any, Any] = {}
        self._zeros: dict[Any, bool] = {}
        self._moments: dict[tuple[Ids, Ids, Ids], Masses] = {}
        self._masses: dict[tuple[Ids, Ids], Complex] = {}
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
            self._zeros[x] = self.chain.is_zero(self.formula(x))
        return self._zeros[x]

    def sign(self, x: Number) -> int:
        """Return the sign; an unknown one leaves no closed form."""
        try:
            return self.chain.sign(self.formula(x))
        except NotCoveredError:
            raise NoClosedFormError from None

    def minor(self, rows: Ids, columns: Ids) -> Number:
        """Return the minor of the covariance matrix, bordered by the means (their corner is zero).

        A formula gets a symbol of its own, so that quotients of minors cancel; ``formula`` puts it back.
        """
        x = self._minor(rows, columns)
        if isinstance(x, Fraction) or x.is_Atom:
            return x
        if x not in self._named:
            import sympy

            positive = True if rows == columns else None
            symbol = sympy.Dummy(positive=positive, real=True)
            self._named[x], self._formulas[symbol] = symbol, x
        return self._named[x]

    def formula(self, x: Number) -> Number:
        """Return a number with the formulas of its minors."""
        return x if isinstance(x, Fraction) else x.xreplace(self._formulas)

    def _minor(self, rows: Ids, columns: Ids) -> Number:
        if not rows:
            return ONE
        if len(rows) == 1:
            return self._entry(rows[0], columns[0])
        if (rows, columns) not in self._minors:
            total: Number = ZERO
            for j, b in enumerate(columns):
                entry = self._entry(rows[0], b)
                if entry:
                    term = entry * self._minor(rows[1:], columns[:j] + columns[j + 1:])
                    total = total - term if j % 2 else total + term
            self._minors[rows, columns] = self._tidy(total)
        return self._minors[rows, columns]

    def _tidy(self, x: Number) -> Number:
        if isinstance(x, Fraction):
            return x
        if not self.tilted:
            return canonical(x.expand() if x.free_symbols else x)
        import sympy

        top, bottom = sympy.fraction(sympy.cancel(x) if self.chain.is_free(x) else sympy.together(x))
        return canonical(top.expand() / bottom)

    def _entry(self, a: int, b: int) -> Number:
        if a < 0 or b < 0:
            return ZERO if a < 0 and b < 0 else (self.mean if min(a, b) == REAL else self.imaginary)[max(a, b)]
        entry = self.cov[self.at[a]][self.at[b]]
        return entry + self.noise[a] if a == b and self.noise[a] else entry

    def given(self, s: Ids, a: int, b: int) -> Number:
        """Return the covariance of two variables (or the mean of one) given that those in s vanish."""
        top = self.minor((*s, a), (*s, b))
        return ZERO if self.is_zero(top) else top / self.minor(s, s) if s else top

    # -------------------------------------------------------------------------------------------- moments

    def moment(self, powers: Ids, gates: Ids, s: Ids = ()) -> Masses:
        """Return ``E[prod_i y_i^{powers_i} prod_{k in gates} step(g_k) prod_{k in s} delta(g_k)]`` as a sum of masses.

        The mass of gates and deltas is their own expectation, without powers: see ``mass``.
        """
        key = (powers, gates, s)
        if key not in self._moments:
            self._moments[key] = self._moment(powers, gates, s)
        return self._moments[key]

    def _moment(self, powers: Ids, gates: Ids, s: Ids) -> Masses:
        out: Masses = {}
        branches = self.resolve(gates, s)
        if branches != [(ONE, gates)]:
            for weight, some in branches:
                add(out, weight, self.moment(powers, some, s))
            return out
        i = next((i for i, p in enumerate(powers) if p), None)
        if i is None:
            return {(gates, s, 0): ONE}
        rest = _less(powers, i)
        for turn, part in enumerate((REAL, IMAGINARY)):
            if shift := self.given(s, i, part):
                add(out, shift, self.moment(rest, gates, s), turn)
        for j, p in enumerate(rest):
            if p and (c := self.given(s, i, j)):
                add(out, p * c, self.moment(_less(rest, j), gates, s))
        for k in gates:
            if c := self.given(s, i, k):
                others = tuple(g for g in gates if g != k)
                add(out, c, self.moment(rest, others, tuple(sorted((*s, k)))))
        return out

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

    def mass(self, gates: Ids, s: Ids) -> Complex:
        """Return ``E[prod_{gates} step prod_s delta]``: the density at g_s = 0 times a probability.

        Raises:
            NoClosedFormError: it is no orthant probability with a closed form.
        """
        if (gates, s) not in self._masses:
            value: Complex = (self._density(s), ZERO)
            left = list(gates)
            while left:
                block = [left.pop()]
                for a in block:
                    joined = [b for b in left if not self.is_zero(self.minor((*s, a), (*s, b)))]
                    block += joined
                    left = [b for b in left if b not in joined]
                value = times(value, self._probability(tuple(sorted(block)), s))
            self._masses[gates, s] = value
        return self._masses[gates, s]

    def _density(self, s: Ids) -> Number:
        if not s:
            return ONE
        import sympy

        det = self.minor(s, s)
        if self.is_zero(det):
            raise NotCoveredError("delta", len(s), "deltas of dependent forms have no product", "use distinct forms")
        value = root(1 / det) / sympy.sqrt(2 * sympy.pi) ** len(s)
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
            spread = root(2 * self.given(s, block[0], block[0]))
            if still:
                return (1 + sympy.erf(exact(means[0]) / spread)) / 2, ZERO
            return HALF, sympy.erfi(exact(waves[0]) / spread) / 2
        if len(block) > 3 or not centred or not still:
            raise NoClosedFormError
        angles = sympy.Add(*(self._angle(a, b, s) for a, b in combinations(block, 2)))
        return sympy.Rational(1, 2 ** len(block)) + angles / (2 ** (len(block) - 1) * sympy.pi), ZERO

    def _angle(self, a: int, b: int, s: Ids):
        """Return the arcsine of the correlation of two gates given that those in s vanish."""
        import sympy

        aa, ab, bb = (self.minor((*s, x), (*s, y)) for x, y in ((a, a), (a, b), (b, b)))
        if not all(isinstance(x, Fraction) for x in (aa, ab, bb)):
            return sympy.asin(exact(self.formula(ab)) / root(self.formula(aa * bb)))
        square, sign = ab * ab / (aa * bb), 1 if ab > 0 else -1
        # Rational squares of sines of rational multiples of pi: no others are worth a search.
        known = {ZERO: 0, Fraction(1, 4): 2, HALF: 3, Fraction(3, 4): 4, ONE: 6}.get(square)
        if known is not None:
            return sympy.Rational(sign * known, 12) * sympy.pi
        return sign * sympy.asin(root(square), evaluate=False)


def add(total: Masses, weight: Number, terms: Masses, turn: int = 0) -> None:
    """Add ``i^turn weight`` times a sum of masses to another."""
    for (gates, s, t), c in terms.items():
        key = (gates, s, (t + turn) % 2)
        total[key] = total.get(key, ZERO) + (-weight if t + turn == 2 else weight) * c


def root(x: Number):
    """Return the square root, a sympy expression."""
    import sympy

    if isinstance(x, Fraction):
        return sympy.sqrt(sympy.Rational(x.numerator, x.denominator))
    return sympy.sqrt(x)


def _less(powers: Ids, i: int) -> Ids:
    return (*powers[:i], powers[i] - 1, *powers[i + 1:])


def times(x: Complex, y: Complex) -> Complex:
    """Return the product. (A sympy product with 0 asks whether the other factor is finite, at length: none here.)"""
    (a, b), (c, d) = x, y
    if not b and not d:
        return a * c, ZERO
    if not b:
        return a * c, a * d
    return (a * c, b * c) if not d else (a * c - b * d, a * d + b * c)
