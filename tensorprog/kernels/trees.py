"""Expectations that have no dual, written down: expression trees of jointly Gaussian coordinates.

A tree is what an expectation is of (``Integrand``); what it needs of inputs and pairs, the covariances of its leaves
and numbers of the input, are nodes like any others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorprog.kernels.plan import BOTH, COL, ROW, Node

if TYPE_CHECKING:
    from tensorprog.kernels.expectations import Atom, Z

#: A coordinate at one of the two inputs: its atom's number, and whose input.
Leaf = tuple[int, int]
#: ("leaf", number, side), ("number", argument, side), ("fn", function, steps) or ("sum", ((coef, steps), ...)).
Op = tuple


@dataclass(frozen=True, slots=True)
class Integrand:
    """A product of expressions of Gaussians, some at the row's input and some at the column's.

    Args:
        leaves: the Gaussian coordinates, those of the row first.
        entries: covariances that are not zero: (i, j, argument, side) for leaves i <= j.
        steps: the expressions, each of earlier ones.
        rows, cols: the steps whose product is the row's factor, and the column's (of one input: two factors).
    """

    leaves: tuple[Leaf, ...]
    entries: tuple[tuple[int, int, int, int], ...]
    steps: tuple[Op, ...]
    rows: tuple[int, ...]
    cols: tuple[int, ...]


def leaves(a: Atom, known: dict[int, tuple[Atom, ...]]) -> tuple[Atom, ...]:
    """Return the Gaussian atoms that an atom is a function of, in the order of their numbers; ``known`` is filled."""
    stack = [a]
    while stack:
        x = stack[-1]
        inside = _inside(x)
        missing = [b for b in inside if b.number not in known]
        if missing:
            stack += missing
            continue
        stack.pop()
        found = {x} if x.gaussian else {g for b in inside for g in known[b.number]}
        known[x.number] = tuple(sorted(found, key=lambda g: g.number))
    return known[a.number]


def _inside(a: Atom) -> list[Atom]:
    if a.gaussian or a.value is not None:
        return []
    zs = a.inside if isinstance(a.inside, tuple) else (a.inside,)
    return [b for z in zs for _, e, _, atoms in z.listed() if e == 0 for b in atoms if b.value is None]


def integrand(factors: Sequence[tuple[Atom, int]], pair: bool, covariance: Callable[..., Node],
              known: dict[int, tuple[Atom, ...]]) -> tuple[Integrand, list[Node]]:
    """Return the expectation of a product of atoms, each with its side, and the nodes that it needs.

    Args:
        pair: whether the sides are two inputs; else they only divide the product in two.
        covariance: of two leaves (atom, side), given whether they are at two inputs.
        known: leaves by atoms.
    """
    sided = [(a, side if pair else ROW, side) for a, side in factors]
    used = {(x.number, side): (x, side) for a, side, _ in sided for x in leaves(a, known)}
    ordered = sorted(used, key=lambda k: (k[1], k[0]))
    writer = _Writer()
    entries = []
    for i, one in enumerate(ordered):
        for j in range(i, len(ordered)):
            f, g = used[one], used[ordered[j]]
            node = covariance(f, g, f[1] != g[1])
            if not node.is_zero:
                entries.append((i, j, writer.argument(node), BOTH if f[1] != g[1] else f[1]))
    roots: tuple[list[int], list[int]] = ([], [])
    for a, side, place in sided:
        roots[place].append(writer.atom(a, side))
    made = Integrand(tuple(ordered), tuple(entries), tuple(writer.steps), tuple(sorted(roots[ROW])),
                     tuple(sorted(roots[COL])))
    return made, writer.arguments


class _Writer:
    def __init__(self):
        self.steps: dict[Op, int] = {}
        self.arguments: list[Node] = []
        self.places: dict[int, int] = {}
        self.atoms: dict[tuple[int, int], int] = {}

    def argument(self, node: Node) -> int:
        if node.number not in self.places:
            self.places[node.number] = len(self.arguments)
            self.arguments.append(node)
        return self.places[node.number]

    def step(self, *op: Any) -> int:
        return self.steps.setdefault(op, len(self.steps))

    def atom(self, a: Atom, side: int) -> int:
        """Write an atom, what it depends on first (networks over many times are deep)."""
        stack = [a]
        while stack:
            x = stack[-1]
            missing = [b for b in _inside(x) if (b.number, side) not in self.atoms]
            if missing:
                stack += missing
                continue
            stack.pop()
            if (x.number, side) not in self.atoms:
                self.atoms[x.number, side] = self._write(x, side)
        return self.atoms[a.number, side]

    def _write(self, a: Atom, side: int) -> int:
        if a.gaussian:
            return self.step("leaf", a.number, side)
        if a.kind == "sum":
            return self.sum(a.inside, side)
        zs = a.inside if isinstance(a.inside, tuple) else (a.inside,)
        return self.step("fn", a.fn, tuple(self.sum(z, side) for z in zs))

    def sum(self, z: Z, side: int) -> int:
        terms = []
        for c, e, numbers, atoms in z.listed():
            if e == 0:
                nodes = [*numbers, *(b.value for b in atoms if b.value is not None)]
                for x in nodes:
                    c *= x.data if x.op == "constant" else 1.0
                refs = [self.step("number", self.argument(x), side) for x in nodes if x.op != "constant"]
                refs += [self.atoms[b.number, side] for b in atoms if b.value is None]
                if c:
                    terms.append((c, tuple(sorted(refs))))
        if len(terms) == 1 and terms[0][0] == 1.0 and len(terms[0][1]) == 1:
            return terms[0][1][0]
        return self.step("sum", tuple(sorted(terms)))
