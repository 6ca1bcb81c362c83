"""Sums at the scale of the central limit theorem: scalars that stay random in the limit, and Gaussian.

    v.x / sqrt(n), v a centred initial vector that x does not depend on:  N(0, E[Z^v Z^v] E[Z^x Z^x]),

two of them with covariance ``E[Z^v Z^w] E[Z^x Z^y]`` where neither x nor y depends on v or w.

A product with a matrix that is used one way only does not carry dependence: given the vectors that go in, the
coordinates of W z are independent of each other, and depend on z by numbers only (the Gram matrix of all z), whose
fluctuations are of order n^(-1/2). So v.phi(W z) is Gaussian whatever z is of v.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tensorprog.errors import NotCoveredError
from tensorprog.gauss.chain import Number, add, exact, mul
from tensorprog.interp.zvar import ZVar, constant
from tensorprog.program.instructions import Input, Joint, MatMul, Moment, Normal
from tensorprog.program.program import spell

if TYPE_CHECKING:
    from tensorprog.interp.limit import Limits


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that vanishes in the limit, whose leading order the theory does not give: an error if it is needed."""

    error: NotCoveredError


@dataclass(frozen=True, slots=True)
class Sum:
    """A Gaussian sum: its symbol, the initial vector that it is linear in, and the factor beside it.

    ``kin``: that vector and what is correlated with it; ``ancestors``: what the factor depends on, coordinate by
    coordinate or by numbers; ``mixed``: whether a matrix that is used both ways is behind it.
    """

    symbol: Any
    vector: str
    factor: ZVar
    kin: frozenset[str]
    ancestors: frozenset[str]
    mixed: bool


class Sums:
    """The Gaussian sums of a program, in the order of its lines.

    Attributes:
        randoms: covariances of their symbols, by pair in the order of the lines; None where it is not known.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.randoms: dict[tuple[Any, Any], Number | None] = {}
        self.found: list[Sum] = []
        # of the whole program: a term that is smaller in a vector need not be smaller in a sum whose mean vanishes
        self.source = limits.form.source.program
        ways: dict[str, set[bool]] = {}
        for line in self.source.lines:
            if isinstance(line, MatMul):
                ways.setdefault(line.matrix, set()).add(line.transposed)
        self._ancestors: dict[str, frozenset[str]] = {}
        self._mixed: dict[str, bool] = {}
        for line in self.source.lines:
            one_way = isinstance(line, MatMul) and len(ways[line.matrix]) == 1
            behind = () if one_way else (self._ancestors[a] for a in line.args)
            self._ancestors[line.out] = frozenset((line.out,)).union(*behind)
            self._mixed[line.out] = isinstance(line, MatMul) and not one_way or any(self._mixed[a] for a in line.args)

    def of(self, line: Moment) -> ZVar | Unknown:
        """Return the limit of v.x / sqrt(n): a Gaussian number."""
        import sympy

        for v in line.args:
            others = [a for a in line.args if a != v]
            source = self.source.line_of(v)
            if len(others) != len(line.args) - 1 or not isinstance(source, Input) or not _centred(source.law):
                continue
            law: Any = source.law
            kin = frozenset((v,))
            if isinstance(law, Joint):  # jointly Gaussian: independent where uncorrelated
                kin |= {x for x, c in zip(law.group, law.covariance[law.index], strict=True) if not c.is_zero}
            ancestors = frozenset().union(*(self._ancestors[a] for a in others))
            if kin & ancestors:
                continue
            x = constant(Fraction(1))
            for a in others:
                x = x * self.limits.env[a]
            mixed = any(self._mixed[a] for a in others)
            found = Sum(sympy.Symbol(f"G_{line.out}", real=True), v, x, kin, ancestors, mixed)
            self.found.append(found)
            for one in self.found:
                if (c := self._common(one, found)) != 0:
                    self.randoms[one.symbol, found.symbol] = c
            variance = self.randoms.get((found.symbol, found.symbol), Fraction(0))
            return constant(Fraction(0) if self.limits.chain.is_zero(variance) else found.symbol)
        return Unknown(NotCoveredError(
            spell(line), "n^(1/2)", "a sum whose mean vanishes is known to be Gaussian if one of its factors is an "
            "initial vector that nothing else in it depends on, and here none is", "use mean, whose limit is 0"))

    def _common(self, one: Sum, two: Sum) -> Number | None:
        """Return the covariance of two sums."""
        limits = self.limits
        v, w = limits.env[one.vector], limits.env[two.vector]
        if limits.program.dim_of(one.vector) != limits.program.dim_of(two.vector):
            return Fraction(0)
        if one.kin.isdisjoint(two.ancestors) and two.kin.isdisjoint(one.ancestors):
            both = limits.space.inner(v, w)
            return mul(both, limits.space.inner(one.factor, two.factor)) if both != 0 else both
        if one.mixed or two.mixed:
            return None
        return limits.space.inner(v * one.factor, w * two.factor)  # coordinates are independent of each other

    def moments(self, number: Number, name: str) -> tuple[Number, Number]:
        """Return mean and variance of a number that is linear in Gaussian symbols; itself and 0 if it has none.

        Raises:
            NotCoveredError: it is random, and not Gaussian.
        """
        if isinstance(number, Fraction) or not self.randoms:
            return number, Fraction(0)
        symbols = [s for s in number.free_symbols if (s, s) in self.randoms]
        if not symbols:
            return number, Fraction(0)
        import sympy

        poly = sympy.Poly(number, *symbols) if number.is_polynomial(*symbols) else None
        if poly is None or poly.total_degree() > 1:
            raise NotCoveredError(spell(self.source.line_of(name)), str(number)[:120],
                                  "it is random in the limit, and not Gaussian",
                                  "ask for the Gaussian outputs that it is made of")
        return poly.coeff_monomial(1), self.covariance(number, number)

    def covariance(self, x: Number, y: Number) -> Number:
        """Return the covariance of two numbers that are linear in Gaussian symbols.

        Raises:
            NotCoveredError: one sum depends on what the other is linear in, in a way that matrices carry.
        """
        total: Number = Fraction(0)
        symbols = {s for pair in self.randoms for s in pair}
        for s in symbols & exact(x).free_symbols:
            for t in symbols & exact(y).free_symbols:
                c = self.randoms.get((s, t), self.randoms.get((t, s), Fraction(0)))
                if c is None:
                    raise NotCoveredError(f"{s}, {t}", str(t), "each of two sums depends on what the other is linear "
                                          "in, so that their covariance is not known", "ask for one of them at a time")
                total = add(total, mul(mul(exact(x).coeff(s), exact(y).coeff(t)), c))
        return total if isinstance(total, Fraction) else total.expand()


def _centred(law: Any) -> bool:
    means = law.means if isinstance(law, Joint) else (law.mean,) if isinstance(law, Normal) else (None,)
    return all(m is not None and m.is_zero for m in means)
