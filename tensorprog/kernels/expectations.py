"""Coordinates of vectors in the limit, as polynomials in what they depend on, and their expectations for two inputs.

A coordinate of a vector of a network is, in the limit, a polynomial in atoms: coordinates of initial vectors, of
products ``W x`` (Gaussian; families of different matrices are independent), and functions of those. Everything is
said for one input; expectations take one factor from the row's input, one from the column's (or both from one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError
from tensorprog.kernels.plan import BOTH, COL, ROW, Factor, Graph, Node

ZERO = Fraction(0)
#: What stands in front of a monomial: its power of n, and numbers of the input.
Head = tuple[Fraction, tuple[Node, ...]]


@dataclass(eq=False)
class Atom:
    """A coordinate that a polynomial is written in.

    Args:
        number: its place; what it depends on comes before.
        kind: "source" (an initial vector), "product" (a matrix times a vector), "function" (of a Gaussian), "general"
            (a function of anything), or "sum" (a line's name).
        line: where it is from.
        reach: the matrices and initial vectors that it depends on.
        drawn: those that it is linear in, given all others; None if it is not.
        value: of an atom that is not random, its value; it may still be trained.
        inside: of a product the vector it is of, of a function the argument (of a general one all of them), of a sum
            its terms.
        fn: the function. primitive: of a derivative, the function that it is of.
        form: of a Gaussian sum and of a function's argument: its Gaussian part, linear in Gaussian atoms.
        gain: of a product: by what the covariance of the vectors is multiplied.
        family: of a product: its matrix. law: of an initial vector: its law.
    """

    number: int
    kind: str
    line: str
    reach: frozenset[str]
    value: Node | None = None
    inside: Any = None
    fn: Any = None
    primitive: Any = None
    form: tuple[tuple[float, tuple[Node, ...], Atom], ...] | None = None
    gain: float = 0.0
    power: Fraction = ZERO
    family: Any = None
    law: Any = None
    drawn: frozenset[str] | None = None

    def __post_init__(self):
        if self.kind in ("source", "product"):
            self.drawn = frozenset((self.family if self.kind == "source" else self.family[0].name,))
        elif self.flat:
            parts = [x.drawn for _, _, _, atoms in self.inside.listed() for x in atoms]
            known = [x for x in parts if x is not None]
            self.drawn = frozenset().union(*known) if len(known) == len(parts) else None

    def meets(self, other: Atom) -> bool:
        """Whether the two can have anything in common."""
        if self.drawn is None or other.drawn is None:
            return not self.reach.isdisjoint(other.reach)
        return not self.drawn.isdisjoint(other.drawn)

    @cached_property
    def gaussian(self) -> bool:
        """Whether it is Gaussian and random."""
        return self.value is None and (self.kind in ("source", "product") or self.kind == "sum" and bool(self.form))

    @cached_property
    def flat(self) -> bool:
        """Whether it is a sum of atoms with numbers before them."""
        return self.kind == "sum" and all(len(atoms) < 2 for _, _, _, atoms in self.inside.listed())

    @cached_property
    def families(self) -> dict[frozenset[str] | None, list[tuple[float, Fraction, tuple[Node, ...], Atom]]] | None:
        """The terms of a flat sum of products and initial vectors by what they are drawn from; None for other atoms."""
        found: dict = {}
        for c, e, fs, atoms in self.inside.listed() if self.flat else ():
            for x in atoms:
                if x.kind not in ("product", "source"):
                    return None
                found.setdefault(x.drawn, []).append((c, e, fs, x))
        return found or None


Powers = tuple[tuple[Atom, int], ...]


@dataclass(frozen=True)
class Z:
    """A polynomial: ``sum coef n^e * numbers * atoms``; ``wide`` unless it is along a fixed axis (a readout)."""

    terms: Mapping[tuple[Fraction, tuple[Node, ...], Powers], float]
    wide: bool = True
    reach: frozenset[str] = field(default=frozenset(), compare=False)

    @staticmethod
    def of(terms: Iterable[tuple[float, Fraction, Sequence[Node], Sequence[Atom]]], wide: bool = True) -> Z:
        """Collect terms (coefficient, power of n, numbers, atoms)."""
        out: dict = {}
        for coef, e, numbers, atoms in terms:
            counted: dict[Atom, int] = {}
            for a in atoms:
                counted[a] = counted.get(a, 0) + 1
            kept = []
            for f in numbers:
                if f.op == "constant":
                    coef *= f.data
                else:
                    kept.append(f)
            key = (e, tuple(sorted(kept, key=lambda f: f.number)),
                   tuple(sorted(counted.items(), key=lambda p: p[0].number)))
            c = out.get(key, 0.0) + coef
            out[key] = c if abs(c) > 1e-14 * abs(coef) else 0.0
        kept_terms = {k: c for k, c in out.items() if c}
        return Z(kept_terms, wide, frozenset().union(*(a.reach for _, _, p in kept_terms for a, _ in p)))

    @property
    def key(self) -> tuple:
        """What tells it from others."""
        return tuple((e, tuple(f.number for f in fs), tuple((a.number, p) for a, p in atoms), c)
                     for (e, fs, atoms), c in self.terms.items())

    def listed(self) -> list[tuple[float, Fraction, tuple[Node, ...], list[Atom]]]:
        """Return the terms, atoms repeated according to their powers."""
        return [(c, e, fs, [a for a, p in atoms for _ in range(p)]) for (e, fs, atoms), c in self.terms.items()]

    @cached_property
    def size(self) -> Fraction:
        """The power of n that it is; that of its largest term if it is zero."""
        live = [e for (e, _, atoms) in self.terms if not any(_nil(a) for a, _ in atoms)]
        return max(live or [e for e, _, _ in self.terms], default=ZERO)

    @cached_property
    def alone(self) -> Atom | None:
        """The atom that it is, if it is one."""
        if len(self.terms) == 1:
            ((e, fs, atoms), c), = self.terms.items()
            if e == 0 and not fs and c == 1.0 and len(atoms) == 1 and atoms[0][1] == 1:
                return atoms[0][0]
        return None


def _nil(a: Atom) -> bool:
    return a.value is not None and a.value.is_zero


def matched(a: Atom, b: Atom) -> list[tuple[tuple, tuple]] | None:
    """Return the pairs of terms of two flat sums that have anything in common; None if those are sums themselves."""
    if a.families is None or b.families is None:
        return None
    return [(x, y) for k, xs in a.families.items() for x in xs for y in b.families.get(k, ())]


def later_sum(a: Atom, b: Atom) -> Atom:
    """Return the one to write out: a sum, the later of two."""
    return max(a, b, key=lambda x: (x.kind == "sum", x.number))


class NoDual(NotCoveredError):
    """An expectation of one cluster of dependent factors that has no formula; it can be sampled."""


class Deeper(Exception):
    """An expectation that needs too many others first; ``again`` computes what is missing."""

    def __init__(self, again: Callable):
        super().__init__()
        self.again = again


class Expectations:
    """Expectations and covariances, each computed once."""

    #: How many layers are recursed into before starting from below.
    DEPTH = 25

    def __init__(self, graph: Graph):
        self.graph = graph
        self.known: dict[tuple, Any] = {}
        self.depth = 0

    def settle(self, compute: Callable[[], Any]) -> Any:
        """Return ``compute()``, layer by layer where the recursion is deep."""
        stack = [compute]
        while True:
            try:
                found = stack[-1]()
            except Deeper as deeper:
                stack.append(deeper.again)
                continue
            stack.pop()
            if not stack:
                return found

    def recall(self, key: tuple, compute: Callable[[], Any]) -> Any:
        """Return what is known under the key, computing it first if need be."""
        if key in self.known:
            return self.known[key]
        if self.depth >= self.DEPTH:
            raise Deeper(lambda: self.recall(key, compute))
        self.depth += 1
        try:
            found = self.known[key] = compute()
        finally:
            self.depth -= 1
        return found

    # ------------------------------------------------------------------------------------ covariances

    def covariance(self, a: Atom, b: Atom, pair: bool) -> Node:
        """Return the covariance of two Gaussian atoms, a at the row's input and b at the column's."""
        if not a.meets(b):
            return self.graph.constant(0.0)
        if not pair and b.number < a.number:
            a, b = b, a
        return self.recall(("cov", a.number, b.number, pair), lambda: self._covariance(a, b, pair))

    def _covariance(self, a: Atom, b: Atom, pair: bool) -> Node:
        if a.kind == b.kind == "sum" and (pairs := matched(a, b)) is not None:
            terms = []
            for (c, e, fs, x), (d, g, hs, y) in pairs:
                if x.gaussian and y.gaussian and not e and not g:
                    known = x.kind == "product"
                    node = self.inner(x.inside, y.inside, pair) if known else self.covariance(x, y, pair)
                    heads = (*((f, ROW) for f in fs), *((h, COL if pair else ROW) for h in hs))
                    terms.append((c * d * (x.gain if known else 1.0), (*heads, (node, BOTH if pair else ROW))))
            return self.graph.total(terms, pair=pair)
        if a.kind == "sum" or b.kind == "sum":
            if later_sum(a, b) is a:
                return self._linear([(c, fs, x, b) for c, fs, x in a.form or ()], ROW, pair)
            return self._linear([(c, fs, a, x) for c, fs, x in b.form or ()], COL, pair)
        if a.kind != b.kind or a.family != b.family:
            return self.graph.constant(0.0)
        if a.kind == "source":
            return self.graph.constant(a.law(b))
        return self.graph.total([(a.gain, ((self.inner(a.inside, b.inside, pair), BOTH if pair else ROW),))], pair=pair)

    def _linear(self, parts, side: int, pair: bool) -> Node:
        terms = []
        for c, fs, x, y in parts:
            inner = self.covariance(x, y, pair)
            terms.append((c, (*((f, side) for f in fs), (inner, BOTH if pair else ROW))))
        return self.graph.total(terms, pair=pair)

    def inner(self, x: Any, y: Any, pair: bool) -> Node:
        """Return what two vectors' coordinates have in common: the sum of products along a fixed axis, else the mean
        at the leading order."""
        if isinstance(x, Node):
            return self.graph.gram(x, y, pair=pair) if isinstance(y, Node) else self.graph.constant(0.0)
        if isinstance(y, Node):
            return self.graph.constant(0.0)
        a, b = x.alone, y.alone
        if a is None or b is None:
            return self._inner(x, y, pair)
        if not pair and b.number < a.number:
            a, b, x, y = b, a, y, x
        key = ("inner", a.number, b.number, pair)
        return self.known[key] if key in self.known else self.recall(key, lambda: self._inner(x, y, pair))

    def _inner(self, x: Z, y: Z, pair: bool) -> Node:
        a, b = x.alone, y.alone
        if a is not None and b is not None and a.kind == b.kind == "function":
            return self._functions(a, b, pair)
        return self.expectation(x, y, pair).get(x.size + y.size) or self.graph.constant(0.0)

    def _functions(self, a: Atom, b: Atom, pair: bool) -> Node:
        """Return the expectation of two functions of Gaussians, a at the row's input and b at the column's."""
        f, g = ((x.fn, x.form, side, x) for x, side in ((a, ROW), (b, COL)))
        common = self._common(f, g, pair)
        if common.is_zero:
            means = [(self._cluster_mean([x], False)[0], x[2] if pair else ROW) for x in (f, g)]
            return self.graph.total([(1.0, tuple(means))], pair=pair)
        q1, q2 = (self._common(x, x, False) for x in (f, g))
        return self.graph.dual(a.fn, b.fn, q1, q2, common, pair=pair)

    # ------------------------------------------------------------------------------------ expectations

    def expectation(self, x: Z, y: Z, pair: bool) -> dict[Fraction, Node]:
        """Return ``E x y`` by powers of n, x at the row's input and y at the column's (or both at one)."""
        return self.by_terms(x, y, pair, self.mean)

    def by_terms(self, x: Z, y: Z, pair: bool, mean_of: Callable[..., list[Factor]]) -> dict[Fraction, Node]:
        """Return the same; ``mean_of``: what a term's expectation is formed by."""
        a, b = x.alone, y.alone
        if a is not None and b is not None and a.kind == b.kind == "function":
            node = self.inner(x, y, pair)
            return {} if node.is_zero else {ZERO: node}
        by_power: dict[Fraction, list] = {}
        for c, e, fs, atoms in x.listed():
            for d, g, hs, others in y.listed():
                mean = mean_of([*((a, ROW) for a in atoms), *((b, COL) for b in others)], pair)
                heads = (*((f, ROW) for f in fs), *((h, COL) for h in hs))
                by_power.setdefault(e + g, []).append((c * d, (*heads, *mean)))
        found = {e: self.graph.total(terms, pair=pair) for e, terms in by_power.items()}
        return {e: node for e, node in found.items() if not node.is_zero}

    def average(self, factors: Sequence[Z]) -> dict[Fraction, Node]:
        """Return the expectation of a product at one input, by powers of n."""
        product: list[tuple[float, Fraction, tuple[Node, ...], list[Atom]]] = [(1.0, ZERO, (), [])]
        for z in factors:
            product = [(c * d, e + g, (*fs, *hs), [*atoms, *others])
                       for c, e, fs, atoms in product for d, g, hs, others in z.listed()]
        by_power: dict[Fraction, list] = {}
        for c, e, fs, atoms in product:
            mean = self.mean([(a, ROW) for a in atoms], False)
            by_power.setdefault(e, []).append((c, (*((f, ROW) for f in fs), *mean)))
        found = {e: self.graph.total(terms, pair=False) for e, terms in by_power.items()}
        return {e: node for e, node in found.items() if not node.is_zero}

    def mean(self, factors: Sequence[tuple[Atom, int]], pair: bool) -> list[Factor]:
        """Return the expectation of a product of atoms as a product of nodes."""
        return self.closed(factors, pair)

    def closed(self, factors: Sequence[tuple[Atom, int]], pair: bool) -> list[Factor]:
        """Return the same by formulas; raises NoDual where there is none."""
        out: list[Factor] = []
        random: list[tuple[Any, Any, int, Atom]] = []
        for i, (a, side) in enumerate(factors):
            if a.value is not None:
                out.append((a.value, side))
            elif a.kind == "general":
                raise NoDual(a.line, a.fn.name, "an expectation of a function of what is not Gaussian has no formula",
                             "sample it")
            elif a.kind == "function":
                random.append((a.fn, a.form, side, a))
            elif a.gaussian:
                random.append((None, ((1.0, (), a),), side, a))
            else:  # a sum that is not Gaussian: term by term
                return [*out, self._expanded(random, a, side, factors[i + 1:], pair)]
        while random:
            cluster, rest = self._cluster(random, pair)
            out.append(self._cluster_mean(cluster, pair))
            if out[-1][0].is_zero:
                return [out[-1]]
            random = rest
        return out

    def _expanded(self, before, a: Atom, side: int, after, pair: bool) -> Factor:
        others = [*((b, s) for _, _, s, b in before), *after]
        if len(others) == 1 and others[0][1] != side or not others:  # one sum (with another): known by its number
            b = others[0][0] if others else None
            if b is not None and not a.reach & b.reach:
                means = [self._expand(x, [], s, pair) for x, s in ((a, side), others[0])]
                return self.graph.total([(1.0, tuple(means))], pair=pair), BOTH if pair else ROW
            key = ("sum", a.number, -1 if b is None else b.number, side, pair)
            return self.recall(key, lambda: self._expand(a, others, side, pair))
        return self._expand(a, others, side, pair)

    def _expand(self, a: Atom, others, side: int, pair: bool) -> Factor:
        if others and others[0][0].kind == "sum" and not others[0][0].gaussian and others[0][0].number > a.number:
            (b, t), *rest = others  # the later one first: what came before it is known
            a, side, others = b, t, [(a, side), *rest]
        if a.kind != "sum" or a.gaussian:
            mean = self.closed([(a, side), *others], pair)
            return self.graph.total([(1.0, tuple(mean))], pair=pair), self._place([(a, side), *others], pair)
        terms = []
        for c, e, fs, atoms in a.inside.listed():
            if e == 0:
                mean = self.closed([*((x, side) for x in atoms), *others], pair)
                terms.append((c, (*((f, side) for f in fs), *mean)))
        sides = {side, *(s for _, s in others)}
        both = pair and len(sides) > 1
        return self.graph.total(terms, pair=both), BOTH if both else side if pair else ROW

    def _place(self, factors, pair: bool) -> int:
        sides = {s for _, s in factors}
        return (BOTH if len(sides) > 1 else sides.pop()) if pair else ROW

    def _common(self, f, g, pair: bool) -> Node:
        """Return the covariance of two factors' arguments."""
        (_, form, s, _), (_, other, t, _) = f, g
        if s > t:
            form, other, s, t = other, form, t, s
        both = pair and s != t
        if len(form) == len(other) == 1 and form[0][:2] == other[0][:2] == (1.0, ()):
            return self.covariance(form[0][2], other[0][2], both)
        terms = []
        for c, fs, a in form:
            for d, hs, b in other:
                inner = self.covariance(a, b, both)
                if not inner.is_zero:
                    heads = (*((h, s if both else ROW) for h in fs), *((h, t if both else ROW) for h in hs))
                    terms.append((c * d, (*heads, (inner, BOTH if both else ROW))))
        return self.graph.total(terms, pair=both)

    def _cluster(self, random: list, pair: bool) -> tuple[list, list]:
        cluster, rest = [random[0]], list(random[1:])
        grown = True
        while grown:
            grown = False
            for f in list(rest):
                if any(not self._common(g, f, pair).is_zero for g in cluster):
                    cluster.append(f)
                    rest.remove(f)
                    grown = True
        return cluster, rest

    def _cluster_mean(self, cluster: list, pair: bool) -> Factor:
        """Return the expectation of a product of dependent factors ``phi(form)`` (None: the form itself)."""
        graph = self.graph
        sides = {s for _, _, s, _ in cluster}
        both = pair and len(sides) > 1
        place = BOTH if both else min(sides) if pair else ROW
        plain = next((f for f in cluster if f[0] is None), None)
        if len(cluster) == 1:
            phi, _, _, _ = cluster[0]
            if phi is None:
                return graph.constant(0.0), place
            return graph.average(phi, self._common(cluster[0], cluster[0], False)), place
        if len(cluster) == 2 and plain is None:
            f, g = sorted(cluster, key=lambda f: f[2])
            q1, q2 = (self._common(x, x, False) for x in (f, g))
            return graph.dual(f[0], g[0], q1, q2, self._common(f, g, pair), pair=both), place
        if plain is None:
            names = " ".join(f"{f[0].name}(.)" for f in cluster)
            raise NoDual(cluster[0][3].line, names, "an expectation over more than two functions of dependent "
                         "Gaussians has no kernel formula", "sample it")
        rest = list(cluster)
        rest.remove(plain)
        merged = self._merged(plain, rest)
        if merged is not None:
            head, group = merged
            mean, where = self._cluster_mean(group, pair)
            heads = tuple((f, plain[2] if pair else ROW) for f in head)
            return graph.total([(1.0, (*heads, (mean, where)))], pair=both), place
        # integration by parts: E g F = sum_k cov(g, l_k) E dF/dl_k
        terms = []
        for i, f in enumerate(rest):
            common = self._common(plain, f, pair)
            if common.is_zero:
                continue
            where = BOTH if pair and plain[2] != f[2] else f[2] if pair else ROW
            others = rest[:i] + rest[i + 1:]
            if f[0] is not None:
                if f[0].jumps:
                    raise NoDual(f[3].line, f[0].name, "a product with a function that jumps has no kernel formula",
                                 "sample it")
                slope = f[0].partial(0)
                if slope is None:
                    continue
                others = [*others[:i], (slope, f[1], f[2], replace(f[3], fn=slope, primitive=None)), *others[i:]]
            means: list[Factor] = [(common, where)]
            left = others
            while left:
                group, left = self._cluster(left, pair)
                means.append(self._cluster_mean(group, pair))
            terms.append((1.0, tuple(means)))
        return graph.total(terms, pair=both), place

    def _merged(self, plain, rest: list) -> tuple[tuple[Node, ...], list] | None:
        """Return ``g f'(r g) = k f(r g)/r`` for f homogeneous of degree k (Euler), which has a meaning at jumps."""
        ((_, _, g),) = plain[1]
        for i, (fn, form, side, a) in enumerate(rest):
            if fn is None or a.primitive is None or side != plain[2] or len(form) != 1 or form[0][2] is not g:
                continue
            (c, fs, _), whole = form[0], a.primitive
            inverse = [self.graph.function(nonlinearity("reciprocal"), [f]) for f in fs]
            k = self.graph.constant(float(whole.degree) / c)
            return (k, *inverse), [*rest[:i], (whole, form, side, replace(a, fn=whole, primitive=None)), *rest[i + 1:]]
        return None
