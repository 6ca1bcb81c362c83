"""Expectations that have no dual: split into independent groups, those that have duals computed, the rest sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from tensorprog.kernels.expectations import ZERO, Atom, Expectations, NoDual, Z
from tensorprog.kernels.plan import BOTH, COL, ROW, Factor, Node
from tensorprog.kernels.trees import Joint, Placed, Trees

#: A product at one input: a coefficient, numbers and atoms.
Monomial = tuple[float, tuple[Node, ...], tuple[Atom, ...]]
#: The same with the atoms of one part apart from the others.
Product = tuple[float, tuple[Node, ...], tuple[Atom, ...], tuple[Atom, ...]]


class Mixed(Expectations):
    """Expectations of anything; what has a dual stays one."""

    #: A product of sums is written out if that separates independent parts and makes no more terms than this.
    TERMS = 100
    #: Products of more functions of Gaussians that depend on each other are not tried to be closed.
    FACTORS = 4

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.trees = Trees(self.covariance)
        self._counts: dict[int, int] = {}
        self._known_parts: dict[tuple, dict[tuple[int, int], int]] = {}
        self.open: set[tuple] = set()  # products that have no closed form

    def atom(self, key: tuple, **facts: Any) -> Atom:
        """Return the atom of a key."""
        raise NotImplementedError

    def mean(self, factors: Sequence[Placed], pair: bool) -> list[Factor]:
        """Return the expectation of a product of atoms as a product of nodes: duals, else what is sampled."""
        try:
            return self._strict(factors, pair)
        except NoDual:
            return self._sampled(factors, pair)

    def _strict(self, factors: Sequence[Placed], pair: bool) -> list[Factor]:
        """Return the same, raising NoDual (again at once) if any of it is not closed."""
        if self.open and (pair, *sorted((a.number, side) for a, side in factors)) in self.open:
            raise NoDual("", "", "", "")
        try:
            return self.closed(factors, pair)
        except NoDual:
            self.open.add((pair, *sorted((a.number, side) for a, side in factors)))
            raise

    def expectation(self, x: Z, y: Z, pair: bool) -> dict[Fraction, Node]:
        """Return ``E x y`` by powers of n, term by term if every term is closed and else as a whole."""
        if len(x.terms) == len(y.terms) == 1:
            return self.by_terms(x, y, pair, self.mean)
        try:
            return self.by_terms(x, y, pair, self._strict)
        except NoDual:
            found: dict[Fraction, list] = {}
            for (e, one), (g, two) in product(self._by_powers(x), self._by_powers(y)):
                (c, fs, atoms), (d, hs, others) = one, two
                mean = self.mean([*((a, ROW) for a in atoms), *((b, COL) for b in others)], pair)
                heads = (*((f, ROW) for f in fs), *((h, COL) for h in hs))
                found.setdefault(e + g, []).append((c * d, (*heads, *mean)))
            made = {e: self.graph.total(terms, pair=pair) for e, terms in found.items()}
            return {e: node for e, node in made.items() if not node.is_zero}

    def _by_powers(self, z: Z) -> list[tuple[Fraction, Monomial]]:
        """Return the terms of each power of n as one."""
        parts: dict[Fraction, list[Monomial]] = {}
        for c, e, fs, atoms in z.listed():
            parts.setdefault(e, []).append((c, fs, tuple(atoms)))
        return [(e, self._collected(terms)) for e, terms in parts.items()]

    # --------------------------------------------------------------------------------------------- splitting

    def _sampled(self, factors: Sequence[Placed], pair: bool) -> list[Factor]:
        """Return an expectation group by group of factors that depend on each other."""
        out: list[Factor] = [(a.value, side) for a, side in factors if a.value is not None]
        if any(x.is_zero for x, _ in out):
            return [(self.graph.constant(0.0), ROW)]
        random = [f for f in factors if f[0].value is None]
        if not random:
            return out
        groups = self._groups(random, self._parts(random, pair))
        if len(groups) > 1:
            for group in groups:
                out += self.mean(group, pair)
                if out[-1][0].is_zero:
                    return [out[-1]]
            return out
        (group,) = groups
        both = pair and len({s for _, s in group}) > 1
        if pair and not both:  # at one of the inputs
            mean = self.mean([(a, ROW) for a, _ in group], False)
            return [*out, (self.graph.total([(1.0, tuple(mean))], pair=False), group[0][1])]
        return [*out, (self._jointly(group, pair), BOTH if pair else ROW)]

    def _jointly(self, group: Sequence[Placed], pair: bool) -> Node:
        """Return the expectation of factors that depend on each other."""
        plain: tuple[list[Product], ...] = tuple([(1.0, (), tuple(a for a, s in group if s == side), ())]
                                                 for side in (ROW, COL))
        split = self._separated(group, pair)
        rows, cols = split or plain
        closed: list = []
        joint: list[Joint] = []
        for i, (c, fs, xs, bs) in enumerate(rows):
            for j, (d, hs, ys, ds) in enumerate(cols):
                numbers = [*((f, ROW) for f in fs), *((h, COL if pair else ROW) for h in hs)]
                numbers += self.mean([*((b, ROW) for b in bs), *((b, COL) for b in ds)], pair)
                if any(x.is_zero for x, _ in numbers):
                    continue
                try:
                    if not split or sum(map(self._count, (*xs, *ys))) > self.FACTORS:
                        raise NoDual("", "", "", "")
                    inner = self._strict([*((x, ROW) for x in xs), *((y, COL) for y in ys)], pair)
                    closed.append((c * d, (*numbers, *inner)))
                except NoDual:
                    joint.append((c * d, i, j, numbers))
        if joint:
            made = self.trees.integrand([x[2] for x in rows], [x[2] for x in cols], joint, pair)
            closed.append((1.0, ((self.graph.expectation(*made, pair=pair), BOTH if pair else ROW),)))
        return self.graph.total(closed, pair=pair)

    def _parts(self, factors: Sequence[Placed], pair: bool) -> dict[tuple[int, int], int]:
        """Return for every Gaussian of some factors the number of the independent part that it belongs to."""
        used = self.trees.used([(a, s if pair else ROW) for a, s in factors])
        leaves = tuple((x.number, s) for x, s in used)
        key = (pair, *leaves)
        if key not in self._known_parts:
            part = {k: i for i, k in enumerate(leaves)}
            for i, j, _, _ in self.trees.entries(used):
                one, two = part[leaves[i]], part[leaves[j]]
                if one != two:
                    part = {k: one if v == two else v for k, v in part.items()}
            self._known_parts[key] = part if pair else part | {(k, COL): v for (k, _), v in part.items()}
        return self._known_parts[key]

    def _groups(self, factors: Sequence[Placed], part: dict[tuple[int, int], int]) -> list[list[Placed]]:
        """Return factors in groups that have no part in common."""
        groups: list[tuple[set[int], list[Placed]]] = []
        for a, s in factors:
            parts, group = {part[x.number, s] for x in self.trees.leaves(a)}, [(a, s)]
            for other in [g for g in groups if g[0] & parts]:
                groups.remove(other)
                parts, group = parts | other[0], [*other[1], *group]
            groups.append((parts, group))
        return [group for _, group in groups]

    def _separated(self, group: Sequence[Placed], pair: bool) -> tuple[list[Product], list[Product]] | None:
        """Return ``sum_B A_B B`` of the row and of the column, written out into independent parts; None if one.

        A_B is of the part that has most factors; B runs over the products of all others, which mostly have duals.
        """
        part = self._parts(group, pair)
        if len(set(part.values())) < 2:
            return None
        sides: list[list[Monomial]] = []
        for side in (ROW, COL):
            terms: list[Monomial] = [(1.0, (), ())]
            for a, s in group:
                if s == side:
                    terms = [(c * d, (*fs, *hs), (*xs, *ys)) for c, fs, xs in terms
                             for d, hs, ys in self._written(a, side, part)]
                if len(terms) > 4 * self.TERMS:
                    return None
            sides.append(terms)
        for side, terms in enumerate(sides):  # what is in one function is one part
            for a in {x for _, _, xs in terms for x in xs}:
                found = {part[x.number, side] for x in self.trees.leaves(a)}
                part = {k: min(found) if v in found else v for k, v in part.items()}
        if len(set(part.values())) < 2:
            return None

        def part_of(a: Atom, side: int) -> int:
            return part[self.trees.leaves(a)[0].number, side]

        sizes: dict[int, tuple[int, int]] = {}
        leaves = list(part.values())
        for side, terms in enumerate(sides):
            for _, _, xs in terms:
                inside = [part_of(x, side) for x in xs]
                for k in set(inside):
                    sizes[k] = max(sizes.get(k, (0, 0)), (inside.count(k), leaves.count(k)))
        large = max(sizes, key=lambda k: (sizes[k], -k))
        rows, cols = ([(*self._collected(terms), others) for others, terms in
                       self._sorted(sides[s], lambda a, s=s: part_of(a, s) == large).items()] for s in (ROW, COL))
        if len(rows) * len(cols) > self.TERMS:
            return None
        return rows, cols

    def _count(self, a: Atom) -> int:
        """Return how many functions of Gaussians are multiplied in an atom, at most."""
        for x in self.trees.below(a, self._counts):
            products = [[b for b in atoms if b.value is None] for _, e, _, atoms in x.inside.listed() if e == 0
                        ] if x.kind == "sum" and not x.gaussian else []
            self._counts[x.number] = max((sum(self._counts[b.number] for b in p) for p in products),
                                         default=int(x.kind == "function"))
        return self._counts[a.number]

    def _written(self, a: Atom, side: int, part: Mapping[tuple[int, int], int]) -> list[Monomial]:
        """Return an atom as a sum of products, sums of several parts written out."""
        known: dict[int, list[Monomial]] = {}
        for x in self.trees.below(a, known):
            known[x.number] = [(1.0, (), (x,))]
            if x.kind == "sum" and not x.gaussian and len({part[g.number, side] for g in self.trees.leaves(x)}) > 1:
                out: list[Monomial] = []
                for c, e, fs, atoms in x.inside.listed():
                    if e != 0:
                        continue
                    terms: list[Monomial] = [(c, (*fs, *(b.value for b in atoms if b.value is not None)), ())]
                    for b in atoms:
                        if b.value is None and len(terms) <= 4 * self.TERMS:
                            terms = [(d * g, (*hs, *ks), (*xs, *ys)) for d, hs, xs in terms
                                     for g, ks, ys in known[b.number]]
                    out += terms
                known[x.number] = out if len(out) <= 4 * self.TERMS else [(1.0, (), (x,))]
        return known[a.number]

    def _sorted(self, terms: Sequence[Monomial], mine: Callable[[Atom], bool],
                ) -> dict[tuple[Atom, ...], list[Monomial]]:
        """Return terms by the factors that are not of a part, each without them."""
        out: dict[tuple[Atom, ...], list[Monomial]] = {}
        for c, fs, xs in terms:
            others = tuple(sorted((x for x in xs if not mine(x)), key=lambda x: x.number))
            out.setdefault(others, []).append((c, fs, tuple(x for x in xs if mine(x))))
        return out

    def _collected(self, terms: Sequence[Monomial]) -> Monomial:
        """Return a sum of terms as one, a sum of its own if there are several."""
        if len(terms) == 1:
            return terms[0]
        inside = Z.of((c, ZERO, fs, xs) for c, fs, xs in terms)
        if len(inside.terms) < 2:
            return next(((c, fs, tuple(xs)) for c, _, fs, xs in inside.listed()), (0.0, (), ()))
        return 1.0, (), (self.atom(("whole", inside.key), kind="sum", line="a sum", reach=inside.reach, inside=inside),)
