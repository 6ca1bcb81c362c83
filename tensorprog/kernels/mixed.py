"""Expectations that have no dual: split into independent groups, those that have duals computed, the rest sampled."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from tensorprog.kernels.expectations import ZERO, Atom, Expectations, NoDual, Z
from tensorprog.kernels.plan import BOTH, COL, ROW, Factor, Node
from tensorprog.kernels.trees import integrand, leaves

#: An atom and whose input it is at.
Placed = tuple[Atom, int]
#: What stands before a product of atoms, and the atoms.
Term = tuple[float, list[Factor], list[Placed]]


class Mixed(Expectations):
    """Expectations of anything; what has a dual stays one."""

    #: A product of sums is written out if that separates independent factors and makes no more terms than this.
    TERMS = 256

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.leaves: dict[int, tuple[Atom, ...]] = {}
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

    def _by_powers(self, z: Z) -> list[tuple[Fraction, tuple[float, tuple[Node, ...], list[Atom]]]]:
        """Return the terms of each power of n as one: several are a sum of their own."""
        parts: dict[Fraction, list] = {}
        for c, e, fs, atoms in z.listed():
            parts.setdefault(e, []).append((c, fs, atoms))
        out = []
        for e, terms in parts.items():
            if len(terms) == 1:
                out.append((e, terms[0]))
                continue
            inside = Z.of((c, ZERO, fs, atoms) for c, fs, atoms in terms)
            atom = self.atom(("whole", inside.key), kind="sum", line="a sum", reach=inside.reach, inside=inside)
            out.append((e, (1.0, (), [atom])))
        return out

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
        place = BOTH if both else group[0][1] if pair else ROW
        split = self._separated(group, pair)
        if split is not None:
            return [*out, (self.graph.total(((c, (*heads, *self.mean(fs, pair))) for c, heads, fs in split), pair=both)
                           if both or not pair else self._aside(split), place)]
        made, args = integrand(group, both, self._common_of, self.leaves)
        return [*out, (self.graph.expectation(made, args, pair=both), place)]

    def _aside(self, split: Sequence[Term]) -> Node:
        """Return a sum of expectations at the column's input alone, which is one at any input."""
        terms = []
        for c, heads, factors in split:
            mean = self.mean([(a, ROW) for a, _ in factors], False)
            terms.append((c, (*((f, ROW) for f, _ in heads), *mean)))
        return self.graph.total(terms, pair=False)

    def _parts(self, factors: Sequence[Placed], pair: bool) -> dict[tuple[int, int], int]:
        """Return for every Gaussian of some factors the number of the independent part that it belongs to."""
        used = list({(x.number, s): (x, s) for a, s in factors for x in leaves(a, self.leaves)}.values())
        part = {(x.number, s): i for i, (x, s) in enumerate(used)}
        for i, (x, s) in enumerate(used):
            for y, t in used[i + 1:]:
                one, two = part[x.number, s], part[y.number, t]
                if one != two and not self._common_of((x, s), (y, t), pair and s != t).is_zero:
                    part = {k: one if v == two else v for k, v in part.items()}
        return part

    def _common_of(self, f: Placed, g: Placed, both: bool) -> Node:
        (a, _), (b, _) = (f, g) if f[1] <= g[1] else (g, f)
        return self.covariance(a, b, both)

    def _groups(self, factors: Sequence[Placed], part: dict[tuple[int, int], int]) -> list[list[Placed]]:
        """Return factors in groups that have no part in common."""
        groups: list[tuple[set[int], list[Placed]]] = []
        for a, s in factors:
            parts, group = {part[x.number, s] for x in leaves(a, self.leaves)}, [(a, s)]
            for other in [g for g in groups if g[0] & parts]:
                groups.remove(other)
                parts, group = parts | other[0], [*other[1], *group]
            groups.append((parts, group))
        return [group for _, group in groups]

    def _separated(self, group: Sequence[Placed], pair: bool) -> list[Term] | None:
        """Return a product of sums written out, if in every term no group depends on all that the whole depends on."""
        part = self._parts(group, pair)
        whole = len(set(part.values()))
        sums = [(a, s) for a, s in group if a.kind == "sum" and not a.gaussian]
        if not sums or whole < 2:
            return None
        count = 1
        for a, _ in sums:
            count *= len(a.inside.terms)
        if count > self.TERMS:
            return None
        rest: list[Placed] = [f for f in group if f not in sums]
        written: list[Term] = [(1.0, [], rest)]
        for a, s in sums:
            written = [(c * d, [*heads, *((f, s) for f in fs)], [*factors, *((x, s) for x in atoms)])
                       for c, heads, factors in written for d, e, fs, atoms in a.inside.listed() if e == 0]
        for _, _, factors in written:
            for found in self._groups([f for f in factors if f[0].value is None], part):
                if len({part[x.number, s] for a, s in found for x in leaves(a, self.leaves)}) == whole:
                    return None
        return written
