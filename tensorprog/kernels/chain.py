"""Deep networks of one kind without biases: their whole kernel is a function of the correlation of two inputs.

A chain of products with matrices and functions that are homogeneous of degree one (``compose``) is recognized here.
Then nothing is computed layer by layer: one table is read for each pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorprog.kernels.compose import Composition, compose
from tensorprog.kernels.dual import dual
from tensorprog.kernels.expectations import Atom, Z
from tensorprog.kernels.plan import Graph, Node
from tensorprog.kernels.rows import product
from tensorprog.kernels.tiles import ROWS


class Chain:
    """A kernel ``scale sqrt(q1 q2) f(rho)``, computed tile by tile like a ``Schedule``."""

    width, rows = 1, ROWS

    def __init__(self, data: Node, variance: Node, first: float, scale: float, composition: Composition, tangent: bool):
        self.data, self.variance, self.first, self.scale = data, variance, first, scale
        self.composition, self.tangent = composition, tangent
        self.inputs = [data, variance]

    def run(self, rows: Mapping[int, np.ndarray], cols: Mapping[int, np.ndarray], out: np.ndarray, free: list) -> None:
        """Write one tile."""
        c = product(rows[self.data.number], cols[self.data.number], np.empty(out.shape, out.dtype))
        c *= self.first
        q1, q2 = rows[self.variance.number], cols[self.variance.number]
        self.composition.kernel(q1, q2, c, self.scale, ntk=self.tangent, out=out)

    def diagonal(self, one: Mapping[int, np.ndarray], n: int) -> np.ndarray:
        """Return K(x, x) of every input, (N,): what the layers make of correlation 1."""
        value = self.composition.exact(np.zeros(1), np.full(1, np.pi))[self.tangent]
        return one[self.variance.number] * (self.scale * float(value[0]))


def find(x: Z, graph: Graph, tangent: bool) -> Chain | None:
    """Return the chain that an output is the end of, None if it is not one.

    Example:
        >>> import tensorprog as tp
        >>> from tensorprog.kernels.kernel import nngp
        >>> cov = nngp(tp.nets.mlp(depth=9, activation="relu")).covariances
        >>> find(cov.env["f"], cov.graph, False).scale * 2**9
        1.0
    """
    atoms: list[Atom] = []
    functions: list[Any] = []
    inside: Any = x
    while isinstance(inside, Z):
        a = _only(inside, "product")
        if a is None or a.power != 0 or a.value is not None or not a.gain:
            return None
        atoms.append(a)
        inside = a.inside
        if isinstance(inside, Z):
            f = _only(inside, "function")
            form = () if f is None else f.form or ()
            if f is None or [part[:2] for part in form] != [(1.0, ())]:
                return None
            functions.append(f.fn)
            inside = f.inside
    if not functions or any(f.degree != 1 for f in functions):
        return None
    layers = [dual(f) for f in reversed(functions)]
    known = [d.homogeneous for d in layers if d.homogeneous is not None]
    if len(known) < len(layers):
        return None
    atoms.reverse()
    scale, rates = 1.0, []
    for layer, a in zip(known, atoms[1:], strict=True):
        scale *= layer.second_moment * a.gain
    for a in atoms:
        matrix, cols = a.family
        wide = isinstance(a.inside, Z)
        e = matrix.rate_power + (cols.growth if wide else 0)
        if tangent and matrix.rate and e > 0:
            return None
        rates.append(matrix.rate * (float(cols.factor) if wide else 1.0) / a.gain if e == 0 else 0.0)
    first = atoms[0].gain
    variance = graph.total([(first, ((graph.gram(inside, inside, pair=False), 0),))], pair=False)
    return Chain(inside, variance, first, scale, compose(layers, rates=rates if tangent else None), tangent)


def _only(z: Z, kind: str) -> Atom | None:
    """Return the atom of this kind that a coordinate is."""
    return z.alone if z.alone is not None and z.alone.kind == kind else None
