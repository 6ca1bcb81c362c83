"""Dots in the recursion of covariances: what W x has in common with the vectors that W^T was applied to.

    W x = hat + sum_u sigma^2 E[d x / d hat(W^T y_u)] y_u        over the uses of W^T so far,

the hat a Gaussian that is independent of the hats of W^T. All is said for one input: a network's vectors depend on
their own input only, so the coefficients are numbers of the input, and the dots terms of a polynomial.

Source: yang2020matrix (Master Theorem), yang2020tp2.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError
from tensorprog.kernels.expectations import ZERO, Atom, Z
from tensorprog.kernels.plan import Node
from tensorprog.kernels.tangent import Tangents


class Tied(NotCoveredError):
    """Gradients may depend on the forward pass: the program of both passes tells their limit."""


class Dotted(Tangents):
    """Derivatives by single hats, and the dots that they make.

    Attributes:
        uses: the products with a matrix, by (its name, whether it is transposed).
    """

    uses: dict[tuple[str, bool], list[Atom]]

    @property
    def tied(self) -> str | None:
        """A matrix that is used both ways, None if there is none."""
        return next((w for w, transposed in self.uses if not transposed and (w, True) in self.uses), None)

    def dots(self, x: Any, uses: Sequence[Atom]) -> list[tuple[Atom, Fraction, Node]]:
        """Return ``E dx/du n^e`` for the hats u of the opposite products, by powers of n, where it is not zero."""
        if not isinstance(x, Z) or not uses:
            return []
        return [(u, e, node) for u in uses if u.value is None and u.number in self.support(x)
                for e, node in self.average([self.derivative(x, u)]).items()]

    def support(self, z: Z) -> frozenset[int]:
        """Return the numbers of the products that a coordinate depends on, itself and by functions."""
        return frozenset().union(*(self._support(a) for _, _, powers in z.terms for a, _ in powers))

    def _support(self, a: Atom) -> frozenset[int]:
        key = ("support", a.number)
        if key not in self.known:
            inside: Any = a.inside if a.kind == "general" else (a.inside,) if a.kind in ("sum", "function") else ()
            found = frozenset().union(*(self.support(z) for z in inside))
            self.known[key] = found | {a.number} if a.kind == "product" else found
        return self.known[key]

    def derivative(self, z: Z, u: Atom, rest: Sequence[Atom] = ()) -> Z:
        """Return dz/du for a hat u; ``rest``: what it is multiplied with before its expectation is taken.

        Raises:
            NotCoveredError: a function that jumps is in the way, times something that does not vanish on average.
        """
        terms: list = []
        for c, e, fs, atoms in z.listed():
            for i, a in enumerate(atoms):
                if u.number not in self._support(a):
                    continue
                others = [*atoms[:i], *atoms[i + 1:]]
                for d, g, hs, xs in self._slope(a, u, [*rest, *others]).listed():
                    terms.append((c * d, e + g, (*fs, *hs), [*others, *xs]))
        return Z.of(terms)

    def _slope(self, a: Atom, u: Atom, rest: Sequence[Atom]) -> Z:
        if a is u:
            return self.one
        key = ("slope", a.number, u.number)
        if key not in self.known:
            if not self._jumps(a, u):
                self.known[key] = self._chained(a, u) if a.fn else self.derivative(a.inside, u)
            elif a.fn is None:  # a sum
                return self.derivative(a.inside, u, rest)
            else:
                return self._at_jumps(a, u, rest)
        return self.known[key]

    def _jumps(self, a: Atom, u: Atom) -> bool:
        """Whether there is a function that jumps between an atom and a hat."""
        if a.kind not in ("sum", "function", "general") or u.number not in self._support(a):
            return False
        key = ("jumps", a.number, u.number)
        if key not in self.known:
            inside: Any = a.inside if a.kind == "general" else (a.inside,)
            self.known[key] = bool(getattr(a.fn, "jumps", ())) or any(
                self._jumps(b, u) for z in inside for _, _, powers in z.terms for b, _ in powers)
        return self.known[key]

    def _chained(self, a: Atom, u: Atom) -> Z:
        terms: list = []
        for i, z in enumerate(a.inside if a.kind == "general" else (a.inside,)):
            inner, slope = self.derivative(z, u), a.fn.partial(i)
            if slope is None or not inner.terms:
                continue
            outer = (self.general(slope, a.inside, a.line) if a.kind == "general" else
                     self.make(slope, a.inside, a.line, a.fn if a.fn.degree else None))
            terms += [(c * d, e + g, (*fs, *hs), [*xs, *ys]) for c, e, fs, xs in outer.listed()
                      for d, g, hs, ys in inner.listed()]
        return Z.of(terms)

    def _at_jumps(self, a: Atom, u: Atom, rest: Sequence[Atom]) -> Z:
        """Return zero if any function of the same argument, times the rest, vanishes on average."""
        any_one = nonlinearity("relu")  # of no parity: what vanishes with it does so by independence
        inside: Any = a.inside if a.kind == "general" else (a.inside,)
        nested = any(self._jumps(b, u) for z in inside for _, _, powers in z.terms for b, _ in powers)
        for z in () if nested else inside:
            inner = self.derivative(z, u)
            instead = self.general(any_one, [z], a.line) if a.kind == "general" else self.make(any_one, z, a.line)
            nested |= bool(inner.terms and self.average([Z.of([(1.0, ZERO, (), rest)]), instead, inner]))
        if nested:
            raise NotCoveredError(a.line, a.fn.name, "its derivative at a jump is in the limit of a product with a "
                                  "transpose", "use a continuous function")
        return Z.of([])
