"""Array programs over inputs and pairs of inputs: what a kernel is compiled to, and how it runs, tile by tile.

A node is a number, something an input has (``one``: an array (N,); ``vector``: (N, d)) or something a pair of inputs
has (``pair``: (N1, N2)). Nodes are made once: equal ones are the same object, so nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorprog.kernels.dual import dual, mean

ROW, COL, BOTH = 0, 1, 2
#: A product of nodes, each at the row's input, at the column's, or of the pair: ``coef * prod(factors)``.
Factor = tuple["Node", int]
Term = tuple[float, tuple[Factor, ...]]


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """A quantity: ``op`` of ``args``.

    Args:
        number: its place; arguments come before.
        space: "number", "one", "vector" or "pair".
        data: what the operation needs besides arguments.
    """

    number: int
    space: str
    op: str
    args: tuple[Node, ...]
    data: Any = field(repr=False)

    @property
    def is_zero(self) -> bool:
        """Whether it is the number 0."""
        return self.op == "constant" and self.data == 0.0


class Graph:
    """Makes nodes.

    >>> g = Graph()
    >>> x = g.input("x", "vector")
    >>> c = g.gram(x, x, pair=True)
    >>> g.total([(2.0, ((c, BOTH),)), (1.0, ((c, BOTH),))], pair=True).data
    ((3.0, ((0, 2),)),)
    """

    def __init__(self):
        self.nodes: list[Node] = []
        self._known: dict[tuple, Node] = {}
        self._functions: dict[int, tuple[Any, int]] = {}
        self._numbers: dict[Any, int] = {}

    def make(self, space: str, op: str, args: Sequence[Node], data: Any, key: Any = None) -> Node:
        """Return the node, a new one only if there is none like it; ``key`` stands for data that take long to hash."""
        key = (space, op, tuple([a.number for a in args]), data if key is None else key)
        node = self._known.get(key)
        if node is None:
            node = self._known[key] = Node(len(self.nodes), space, op, tuple(args), data)
            self.nodes.append(node)
        return node

    def constant(self, x: float) -> Node:
        """Return a number."""
        return self.make("number", "constant", (), float(x))

    def array(self, values: Sequence[float]) -> Node:
        """Return a vector that is the same for every input."""
        return self.make("vector", "array", (), tuple(map(float, values)))

    def input(self, name: str, space: str) -> Node:
        """Return a data input of the network."""
        return self.make(space, "input", (), name)

    def gram(self, u: Node, v: Node, *, pair: bool) -> Node:
        """Return ``sum_j u_j v_j``, u at the row's input and v at the column's (or both at one)."""
        if u.op == v.op == "array":
            return self.constant(sum(x * y for x, y in zip(u.data, v.data, strict=True)))
        if not pair and v.number < u.number:
            u, v = v, u
        return self.make("pair" if pair else "one", "gram", (u, v), None)

    def function(self, fn: Any, args: Sequence[Node], *, vector: bool = False) -> Node:
        """Return ``fn(*args)`` of numbers (or vectors) of one input."""
        if all(a.op == "constant" for a in args) and not vector:
            return self.constant(float(fn.evaluate({}, {}, *(a.data for a in args))))
        return self.make("vector" if vector else "one", "function", args, fn)

    def spread(self, terms: Iterable[tuple[float, Sequence[Node]]]) -> Node:
        """Return a vector: the sum of products of vectors and numbers of one input."""
        terms = [(c, tuple(f)) for c, f in terms]
        args = tuple(dict.fromkeys(f for _, fs in terms for f in fs))
        data = tuple((c, tuple(args.index(f) for f in fs)) for c, fs in terms)
        return self.make("vector", "spread", args, data)

    def dual(self, phi, psi, q1: Node, q2: Node, c: Node, *, pair: bool) -> Node:
        """Return ``E phi(g) psi(h)``, (g, h) Gaussian with variances q1 (row), q2 (column) and covariance c."""
        if {phi.parity, psi.parity} == {"even", "odd"}:
            return self.constant(0.0)
        key = (self._function(phi), self._function(psi))
        return self.make("pair" if pair else "one", "dual", (q1, q2, c), (phi, psi), key)

    def _function(self, fn: Any) -> int:
        """Return a number that equal functions have in common: to hash one takes long."""
        found = self._functions.get(id(fn))
        if found is None:
            found = self._functions[id(fn)] = fn, self._numbers.setdefault(fn, len(self._numbers))
        return found[1]

    def average(self, phi, q: Node) -> Node:
        """Return ``E phi(g)``, g Gaussian of variance q: a number of one input."""
        if getattr(phi, "parity", None) == "odd":
            return self.constant(0.0)
        return self.make("one", "average", (q,), phi)

    def expectation(self, integrand: Any, law: Any, common: Sequence[Node], numbers: Sequence[Node], *,
                    pair: bool) -> Node:
        """Return the expectation of an expression that is sampled (``trees``): of what law, with what covariances."""
        space = "pair" if pair else "one"
        return self.make(space, "expect", (self.make(space, "law", common, law), *numbers), integrand)

    # ------------------------------------------------------------------------------------------------ sums

    def total(self, terms: Iterable[Term], *, pair: bool) -> Node:
        """Return a sum of products, numbers multiplied out and products of one term written in."""
        kept = self._collected([t for c, fs in terms if (t := self._product(c, fs, pair))[0]], pair)
        if not kept:
            return self.constant(0.0)
        if len(kept) == 1 and not kept[0][1]:
            return self.constant(kept[0][0])
        if len(kept) == 1 and kept[0][0] == 1.0 and len(kept[0][1]) == 1 and (kept[0][1][0][1] == BOTH) == pair:
            return kept[0][1][0][0]
        args = tuple(sorted({f for _, fs in kept for f, _ in fs}, key=_number))
        where = {f: i for i, f in enumerate(args)}
        data = tuple(sorted([(c, tuple([(where[f], side) for f, side in fs])) for c, fs in kept]))
        return self.make("pair" if pair else "one", "total", args, data)

    def _collected(self, terms: list[Term], pair: bool) -> list[Term]:
        """Return a sum's terms without repetitions. A sum in it is written out if there is one, or if anything could
        cancel; several would be written out again wherever they are used."""
        sums = {f for _, fs in terms if len(fs) == 1 and (f := fs[0][0]).op == "total"}
        deep = bool(sums) and any(c < 0 or len(fs) == 1 and (f := fs[0][0]) in sums and f.data[0][0] < 0
                                  for c, fs in terms)
        if deep or len(sums) == 1:
            terms = [t for c, fs in terms for t in _written_out(c, fs, pair, deep)]
        found: dict[tuple, Term] = {}
        for c, fs in terms:
            key = (fs[0][0].number, fs[0][1]) if len(fs) == 1 else tuple([(f.number, side) for f, side in fs])
            if key in found:
                total = c + found[key][0]
                c = total if abs(total) > 1e-14 * abs(c) else 0.0
            found[key] = c, fs
        return [t for t in found.values() if t[0]]

    def _product(self, coef: float, factors: Sequence[Factor], pair: bool) -> Term:
        """Return a product with its numbers multiplied and products in it written out."""
        out: list[Factor] = []
        for f, side in factors:
            if f.op == "constant":
                coef *= f.data
            elif f.op == "total" and len(f.data) == 1:
                ((c, inner),) = f.data
                coef *= c
                out += [(f.args[i], side if f.space == "one" and pair else s if pair else ROW) for i, s in inner]
            else:
                out.append((f, side if pair else ROW))
        return coef, tuple(sorted(out, key=lambda p: (p[1], p[0].number)) if len(out) > 1 else out)


def _number(x: Node) -> int:
    return x.number


def _written_out(coef: float, factors: tuple[Factor, ...], pair: bool, deep: bool) -> list[Term]:
    """Return a sum alone as its terms (``deep``: and those that are sums as theirs); another product as it is."""
    if len(factors) != 1 or factors[0][0].op != "total":
        return [(coef, factors)]
    ((f, side),) = factors
    terms = [(coef * c, tuple([(f.args[i], side if f.space == "one" and pair else s) for i, s in inner]))
             for c, inner in f.data]
    return [t for c, fs in terms for t in _written_out(c, fs, pair, deep)] if deep else terms


def reachable(roots: Iterable[Node]) -> list[Node]:
    """Return the nodes that some roots depend on, arguments first."""
    found: dict[int, Node] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.number not in found:
            found[node.number] = node
            stack += node.args
    return [found[k] for k in sorted(found)]


# ------------------------------------------------------------------------------------------- what inputs have


def values(roots: Iterable[Node], given: Mapping[str, np.ndarray], count: int, *,
           fixed: Mapping[int, np.ndarray] | None = None) -> dict[int, np.ndarray]:
    """Return what every input has: node number -> array (N,) or (N, d), in double precision.

    Args:
        given: data inputs by name: (N,) or (N, d).
        count: N.
        fixed: values of nodes that are not to be computed.
    """
    out: dict[int, Any] = dict(fixed or {})
    for node in reachable(roots):
        if node.space == "pair" or node.number in out:
            continue
        args = [out.get(a.number) for a in node.args]
        out[node.number] = _ONE[node.op](node, args, given, count)
    return out


def _total(node: Node, args, given, count):
    total = np.zeros(count)
    for c, factors in node.data:
        x = np.full(count, c)
        for i, _ in factors:
            x = x * args[i]
        total += x
    return total


def _spread(node: Node, args, given, count):
    total: Any = 0.0
    wide = [a if np.ndim(a) == 2 else np.reshape(a, (-1, 1)) for a in args]
    for c, factors in node.data:
        x: Any = c
        for i in factors:
            x = x * wide[i]
        total = total + x
    return np.broadcast_to(total, (count, np.shape(total)[1]))


def _function(node: Node, args, given, count):
    if node.space == "vector":
        args = [a if np.ndim(a) == 2 else np.reshape(a, (-1, 1)) for a in args]
    arrays = np.broadcast_arrays(*(np.asarray(a, float) for a in args), np.zeros(count if node.space == "one" else ()))
    return np.asarray(node.data.evaluate({}, {}, *(np.array(a) for a in arrays[:-1])), float)


def _dual_one(node: Node, args, given, count):
    q1, q2, c = (np.broadcast_to(np.asarray(a, float), (count,)) for a in args)
    found = dual(*node.data)
    if node.args[0] is node.args[1] is node.args[2]:
        return found.diagonal(q1)
    out = np.empty((count, 1))
    found.block(q1[:, None], q2[:, None], c[:, None], out, None)
    return out[:, 0]


def _gram_one(node: Node, args, given, count):
    return np.broadcast_to(np.einsum("nd,nd->n", *np.broadcast_arrays(*args)), (count,))


def _average(node: Node, args, given, count):
    return mean(node.data, np.broadcast_to(np.asarray(args[0], float), (count,)))


_ONE: dict[str, Callable] = {
    "constant": lambda node, args, given, count: node.data,
    "array": lambda node, args, given, count: np.array([node.data]),
    "input": lambda node, args, given, count: given[node.data],
    "gram": _gram_one, "function": _function, "spread": _spread, "total": _total, "dual": _dual_one,
    "average": _average,
}
