"""Tangent kernels: how the derivatives of two coordinates by all trained weights go together.

    T(u, v) = sum over weights of rate * <du/dw, dv/dw>

    T(W x, W x') = rate * |x . x'| + sigma^2 T(x, x'),     T(f(g), h(g')) = sum_ij E d_i f d_j h T(g_i, g'_j).

The second holds because products with W^T in the backward pass are independent of the forward pass. That is so where
the readout is independent, centred and used nowhere else (the simple GIA check), which is checked before.

Source: yang2020tp2.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tensorprog.kernels.expectations import ZERO, Atom, Z, later_sum, matched
from tensorprog.kernels.mixed import Mixed
from tensorprog.kernels.plan import BOTH, COL, ROW, Node


def count(cols: Any, x: Any) -> float:
    """Return the factor of a width's size that a sum over it brings; 1 for a fixed axis, whose sum is written out."""
    return float(cols.factor) if isinstance(x, Z) else 1.0


#: A sum by powers of n.
Powers = dict[Fraction, Node]
#: A derivative: by which Gaussian (or weight), and what it is.
Partial = tuple[Atom, Z]


class Tangents(Mixed):
    """Tangent kernels on top of expectations; ``make`` makes the atom of a function."""

    def tangent(self, a: Atom, b: Atom, pair: bool) -> Powers:
        """Return T of two atoms that are products with matrices, or Gaussian sums, by powers of n."""
        if not a.meets(b):
            return {}
        if not pair and b.number < a.number:
            a, b = b, a
        return self.recall(("tangent", a.number, b.number, pair), lambda: self._tangent(a, b, pair))

    def _tangent(self, a: Atom, b: Atom, pair: bool) -> Powers:
        if a.kind == b.kind == "sum" and (pairs := matched(a, b)) is not None:
            sums: dict[Fraction, list] = {}
            for (c, e, fs, x), (d, g, hs, y) in pairs:
                heads = (*((f, ROW) for f in fs), *((h, COL if pair else ROW) for h in hs))
                for p, t in self._product(x, y, pair).items() if x.kind == "product" else ():
                    power = e + g + p if e or g else p
                    sums.setdefault(power, []).append((c * d, (*heads, (t, BOTH if pair else ROW))))
            return self.sums(sums, pair)
        last = later_sum(a, b)
        if last.flat:
            return self._of_terms(a, b, last is a, pair)
        if not a.kind == b.kind == "product":
            return self.products(self.opened(a), self.opened(b), pair)
        return self._product(a, b, pair) if a.family == b.family else {}

    def _product(self, a: Atom, b: Atom, pair: bool) -> Powers:
        """Return T of two products with one matrix; matrices that are alike give the same."""
        x, y = a.inside, b.inside
        i, j = (z.alone if isinstance(z, Z) else z for z in (x, y))
        if i is None or j is None:
            return self._of_product(a, b, pair)
        key = ("product", self.alike(a), self.alike(b), isinstance(x, Z), i.number, j.number, pair)
        return self.known[key] if key in self.known else self.recall(key, lambda: self._of_product(a, b, pair))

    def alike(self, a: Atom) -> int:
        """Return a number that products with matrices of one shape, variance and rate have in common."""
        key = ("alike", a.number)
        if key not in self.known:
            m, cols = a.family
            facts = ("alike", cols, m.rate, m.rate_power, m.power, a.gain, a.power)
            self.known[key] = self.known.setdefault(facts, a.number)
        return self.known[key]

    def _of_product(self, a: Atom, b: Atom, pair: bool) -> Powers:
        (matrix, cols), x, y = a.family, a.inside, b.inside
        place, shift = BOTH if pair else ROW, a.power + b.power
        found: dict[Fraction, list] = {}
        if matrix.rate:
            e = matrix.rate_power - shift + (x.size + y.size + cols.growth if isinstance(x, Z) else 0)
            found.setdefault(e, []).append((matrix.rate * count(cols, x), ((self.inner(x, y, pair), place),)))
        if a.gain and isinstance(x, Z):
            for e, node in self.tangent_of(x, y, pair).items():
                e += 2 * matrix.power + cols.growth - shift
                found.setdefault(e, []).append((a.gain, ((node, place),)))
        return self.sums(found, pair)

    def sums(self, terms: dict[Fraction, list], pair: bool) -> Powers:
        """Return the sums that are not zero."""
        made = {e: self.graph.total(ts, pair=pair) for e, ts in terms.items()}
        return {e: node for e, node in made.items() if not node.is_zero}

    def _of_terms(self, a: Atom, b: Atom, first: bool, pair: bool) -> Powers:
        """Return T where one atom is a sum of atoms: the sum of theirs."""
        found: dict[Fraction, list] = {}
        side = (ROW if first else COL) if pair else ROW
        for c, e, fs, atoms in (a if first else b).inside.listed():
            for x in atoms:
                for g, t in (self.tangent(x, b, pair) if first else self.tangent(a, x, pair)).items():
                    found.setdefault(e + g, []).append((c, (*((f, side) for f in fs), (t, BOTH if pair else ROW))))
        return self.sums(found, pair)

    def opened(self, a: Atom) -> Sequence[Partial]:
        """Return the derivatives of a sum's terms, or of an atom."""
        return self.partials(a.inside) if a.kind == "sum" else self.by(a)

    def tangent_of(self, x: Z, y: Z, pair: bool) -> Powers:
        """Return ``E T(x, y)`` of two coordinates."""
        if x.alone is not None and y.alone is not None:
            return self.tangent(x.alone, y.alone, pair)
        return self.products(self.partials(x), self.partials(y), pair)

    def products(self, left: Sequence[Partial], right: Sequence[Partial], pair: bool) -> Powers:
        """Return ``sum_ij E d_i x d_j y T(i, j)``."""
        found: dict[Fraction, list] = {}
        for a, u in left:
            for b, v in right:
                for e, t in self.tangent(a, b, pair).items():
                    for g, mean in self.expectation(u, v, pair).items():
                        place = BOTH if pair else ROW
                        found.setdefault(e + g, []).append((1.0, ((mean, place), (t, place))))
        return self.sums(found, pair)

    # ------------------------------------------------------------------------------------------ derivatives

    one = Z.of([(1.0, ZERO, (), ())])

    def partials(self, z: Z) -> list[Partial]:
        """Return the derivatives of a coordinate by products with matrices and Gaussian sums."""
        parts: dict[Atom, list[Any]] = {}
        for (e, fs, powers), c in z.terms.items():
            for a, p in powers:
                rest = [b for b, q in powers for _ in range(q - (b is a))]
                for base, inner in self.by(a):
                    for d, g, hs, others in inner.listed():
                        parts.setdefault(base, []).append((c * p * d, e + g, (*fs, *hs), [*rest, *others]))
        made = [(a, Z.of(terms)) for a, terms in parts.items()]
        return [(a, d) for a, d in made if d.terms]

    def by(self, a: Atom) -> list[Partial]:
        """Return the derivatives of an atom."""
        key = ("partials", a.number)
        if key not in self.known:
            self.known[key] = self._by(a)
        return self.known[key]

    def _by(self, a: Atom) -> list[Partial]:
        if a.kind == "source":
            return []
        if a.kind == "product" or a.gaussian and a.flat:
            return [(a, self.one)]
        if a.kind == "sum":
            return self.partials(a.inside)
        parts: dict[Atom, list] = {}
        for i, z in enumerate(a.inside if a.kind == "general" else (a.inside,)):
            inside, slope = self.partials(z), a.fn.partial(i)
            if slope is None or not inside:
                continue
            outer = (self.general(slope, a.inside, a.line) if a.kind == "general" else
                     self.make(slope, a.inside, a.line, a.fn if a.fn.degree else None))
            for base, inner in inside:
                parts.setdefault(base, []).extend(
                    (c * d, e + g, (*fs, *hs), [*xs, *ys]) for c, e, fs, xs in outer.listed()
                    for d, g, hs, ys in inner.listed())
        return [(base, Z.of(terms)) for base, terms in parts.items()]

    def make(self, fn: Any, z: Z, line: str, primitive: Any = None) -> Z:
        """Return ``fn(z)``; ``primitive`` is the homogeneous function that fn is the derivative of, if it is one."""
        raise NotImplementedError

    def general(self, fn: Any, zs: Sequence[Z], line: str) -> Z:
        """Return ``fn(*zs)``, whose expectations are sampled."""
        raise NotImplementedError

