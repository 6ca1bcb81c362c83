"""Expectations that have no dual, written down: expression trees of jointly Gaussian coordinates.

A tree is what an expectation is of (``Integrand``); what it needs of inputs and pairs, the covariances of its leaves
and numbers of the input, are nodes like any others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorprog.kernels.plan import BOTH, COL, ROW, Factor, Node

if TYPE_CHECKING:
    from tensorprog.kernels.expectations import Atom, Z

#: An atom and whose input it is at.
Placed = tuple["Atom", int]
#: A term of a sum of products: coefficient, the row's product, the column's, and numbers.
Joint = tuple[float, int, int, Sequence[Factor]]
#: The same as Placed of a Gaussian, by its number.
Leaf = tuple[int, int]
#: ("leaf", number, side), ("number", argument, side), ("fn", Shared, steps) or ("sum", ((coef, steps), ...)).
Op = tuple


@dataclass(frozen=True, slots=True)
class Law:
    """Jointly Gaussian coordinates.

    Args:
        leaves: the coordinates, those of the row's input first.
        entries: covariances that are not zero: (i, j, argument, side) for leaves i <= j.
    """

    leaves: tuple[Leaf, ...]
    entries: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Integrand:
    """A sum of products of expressions of Gaussians, one at the row's input and one at the column's.

    Args:
        steps: the expressions, each of earlier ones.
        rows, cols: each the steps whose product is a factor of the row, or of the column (or both of one input).
        terms: (coefficient, row's factor, column's, numbers before it: (argument, side)).
    """

    steps: tuple[Op, ...]
    rows: tuple[tuple[int, ...], ...]
    cols: tuple[tuple[int, ...], ...]
    terms: tuple[tuple[float, int, int, tuple[tuple[int, int], ...]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A function, one object for equal ones, which is quick to hash."""

    fn: Any


class Trees:
    """What atoms are made of, each found once.

    Args:
        covariance: of two Gaussian atoms, as ``Expectations.covariance``.
    """

    def __init__(self, covariance: Callable[[Atom, Atom, bool], Node]):
        self.covariance = covariance
        self._leaves: dict[int, tuple[Atom, ...]] = {}
        self._inside: dict[int, list[Atom]] = {}
        self._entries: dict[tuple, list[tuple[int, int, Node, int]]] = {}
        self._laws: dict[tuple, tuple[Law, list[Node]]] = {}
        self._functions: dict[Any, Shared] = {}
        self._shared: dict[int, Shared] = {}

    def inside(self, a: Atom) -> list[Atom]:
        """Return the random atoms that an atom is written in."""
        if a.number not in self._inside:
            zs = () if a.gaussian or a.value is not None else a.inside if isinstance(a.inside, tuple) else (a.inside,)
            self._inside[a.number] = list({b.number: b for z in zs for _, e, _, atoms in z.listed() if e == 0
                                           for b in atoms if b.value is None}.values())
        return self._inside[a.number]

    def leaves(self, a: Atom) -> tuple[Atom, ...]:
        """Return the Gaussian atoms that an atom is a function of, in the order of their numbers."""
        for x in self.below(a, self._leaves):
            found = {x} if x.gaussian else {g for b in self.inside(x) for g in self._leaves[b.number]}
            self._leaves[x.number] = tuple(sorted(found, key=lambda g: g.number))
        return self._leaves[a.number]

    def below(self, a: Atom, known: Mapping[int, Any]) -> Iterator[Atom]:
        """Yield the atom and what it is made of, inner ones first, which the caller adds to ``known``."""
        stack = [a]
        while stack:
            x = stack[-1]
            missing = [] if x.number in known else [b for b in self.inside(x) if b.number not in known]
            if missing:
                stack += missing
                continue
            stack.pop()
            if x.number not in known:
                yield x

    def common(self, f: Placed, g: Placed) -> Node:
        """Return the covariance of two leaves, each at its side."""
        (a, s), (b, t) = (f, g) if f[1] <= g[1] else (g, f)
        return self.covariance(a, b, s != t)

    def entries(self, ordered: Sequence[Placed]) -> list[tuple[int, int, Node, int]]:
        """Return the covariances of leaves that are not zero: (i, j, node, side), i <= j."""
        key = tuple((x.number, s) for x, s in ordered)
        if key not in self._entries:
            every = ((i, j, self.common(f, ordered[j]), BOTH if f[1] != ordered[j][1] else f[1])
                     for i, f in enumerate(ordered) for j in range(i, len(ordered)))
            self._entries[key] = [entry for entry in every if not entry[2].is_zero]
        return self._entries[key]

    def used(self, factors: Sequence[Placed]) -> list[Placed]:
        """Return the leaves of some atoms, those at the row's input first."""
        found = {(s, x.number): (x, s) for a, s in factors for x in self.leaves(a)}
        return [found[k] for k in sorted(found)]

    def law(self, ordered: Sequence[Placed]) -> tuple[Law, list[Node]]:
        """Return the joint law of leaves and the nodes of their covariances."""
        key = tuple((x.number, s) for x, s in ordered)
        if key not in self._laws:
            entries = self.entries(ordered)
            nodes = list({node.number: node for _, _, node, _ in entries}.values())
            where = {node.number: k for k, node in enumerate(nodes)}
            self._laws[key] = Law(key, tuple((i, j, where[node.number], s) for i, j, node, s in entries)), nodes
        return self._laws[key]

    def shared(self, a: Atom) -> Shared:
        """Return an atom's function."""
        if a.number not in self._shared:
            self._shared[a.number] = self._functions.setdefault(a.fn, Shared(a.fn))
        return self._shared[a.number]

    def integrand(self, rows: Sequence[Sequence[Atom]], cols: Sequence[Sequence[Atom]], terms: Sequence[Joint],
                  pair: bool) -> tuple[Integrand, Law, list[Node], list[Node]]:
        """Return the expectation of a sum of products ``coef * numbers * row's * column's``: for ``Graph.expectation``.

        Args:
            rows, cols: products of atoms.
            terms: (coefficient, number of the row's product, of the column's, numbers).
            pair: whether rows and columns are two inputs.
        """
        sides = (ROW, COL if pair else ROW)
        places: list[dict[int, int]] = [{}, {}]
        for _, *ij, _ in terms:
            for known, i in zip(places, ij, strict=True):
                known.setdefault(i, len(known))
        ordered = self.used([(a, side) for products, known, side in zip((rows, cols), places, sides, strict=True)
                             for i in known for a in products[i]])
        writer = _Writer(self)
        left, right = (tuple(tuple(sorted(writer.atom(a, side) for a in products[i])) for i in known)
                       for products, known, side in zip((rows, cols), places, sides, strict=True))
        made = tuple((c, places[0][i], places[1][j], tuple((writer.argument(x), side) for x, side in numbers))
                     for c, i, j, numbers in terms)
        return Integrand(tuple(writer.steps), left, right, made), *self.law(ordered), writer.arguments


class _Writer:
    def __init__(self, trees: Trees):
        self.trees = trees
        self.steps: dict[Op, int] = {}
        self.arguments: list[Node] = []
        self.places: dict[int, int] = {}
        self.atoms: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def argument(self, node: Node) -> int:
        if node.number not in self.places:
            self.places[node.number] = len(self.arguments)
            self.arguments.append(node)
        return self.places[node.number]

    def step(self, *op: Any) -> int:
        return self.steps.setdefault(op, len(self.steps))

    def atom(self, a: Atom, side: int) -> int:
        for x in self.trees.below(a, self.atoms[side]):
            self.atoms[side][x.number] = self._write(x, side)
        return self.atoms[side][a.number]

    def _write(self, a: Atom, side: int) -> int:
        if a.gaussian:
            return self.step("leaf", a.number, side)
        if a.kind == "sum":
            return self.sum(a.inside, side)
        zs = a.inside if isinstance(a.inside, tuple) else (a.inside,)
        return self.step("fn", self.trees.shared(a), tuple(self.sum(z, side) for z in zs))

    def sum(self, z: Z, side: int) -> int:
        terms = []
        for c, e, numbers, atoms in z.listed():
            if e == 0:
                nodes = [*numbers, *(b.value for b in atoms if b.value is not None)]
                for x in nodes:
                    c *= x.data if x.op == "constant" else 1.0
                refs = [self.step("number", self.argument(x), side) for x in nodes if x.op != "constant"]
                refs += [self.atoms[side][b.number] for b in atoms if b.value is None]
                if c:
                    terms.append((c, tuple(sorted(refs))))
        if len(terms) == 1 and terms[0][0] == 1.0 and len(terms[0][1]) == 1:
            return terms[0][1][0]
        return self.step("sum", tuple(sorted(terms)))
