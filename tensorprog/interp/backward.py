"""Backpropagation as a transformation of programs: the lines that compute the gradients of given variables.

One rule an instruction, each the chain rule of that instruction. Products with a matrix become products with its
transpose: that is where the transposes of the theory (and the dots of the Master Theorem) come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tensorprog.errors import NotCoveredError
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.interp.emit import Emitter, Product
from tensorprog.interp.rules import Rules
from tensorprog.program.instructions import Input, MatMul, Moment, Nonlin, Outer, VectorType
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

backward = Rules("backward")


class Backward:
    """One backward pass over a list of lines.

    Args:
        emitter: where the gradient lines go.
        source: the program whose lines are differentiated (for types).
        value: name in ``source`` -> name of its value in the emitted program, None for an exact zero.
        name: name in ``source`` -> name for its gradient.
        transpose: emits ``matrix.T @ gradient`` and returns the parts that sum to it; of a trained matrix these are
            the initial matrix and its updates.
        wanted: the variables whose gradient is needed; others are skipped.

    After ``run``, ``gradients`` maps variables to the names of their gradients, and ``pairs[W]`` lists the pairs
    (d out, in) of every product with W: the gradient of W is the sum of their outer products.
    """

    def __init__(self, emitter: Emitter, source: Program, value: Mapping[str, str | None], name: Callable[[str], str],
                 transpose: Callable[[MatMul, str, str], Sequence[str | None]], wanted: frozenset[str]):
        self.emit, self.source, self.value, self.name = emitter, source, value, name
        self.transpose, self.wanted = transpose, wanted
        self.parts: dict[str, list[Product]] = {}
        self.gradients: dict[str, str | None] = {}
        self.pairs: dict[str, list[tuple[str, str]]] = {}
        self._count = 0

    def run(self, cotangents: Mapping[str, str | None]) -> dict[str, str | None]:
        """Emit the pass from the gradients of the outputs; returns the gradients of all wanted variables."""
        for v, g in cotangents.items():
            if g is not None:
                self.add(v, ONE, (g,))
        for line in reversed(self.source.lines):
            rule = backward[line]
            if line.out in self.parts:
                g = self.emit.poly(self.name(line.out), self.parts.pop(line.out))
                self.gradients[line.out] = g
                if g is not None:
                    rule(self, line, g)
        return self.gradients

    def add(self, v: str, coef: Scale, factors: tuple[str, ...]) -> None:
        """Add a product to the gradient of ``v``."""
        if v in self.wanted:
            self.parts.setdefault(v, []).append((coef, factors))

    def temporary(self, v: str) -> str:
        """Return a fresh name for a step of the gradient of ``v``."""
        self._count += 1
        return f"{self.name(v)}.{self._count}"

    def is_vector(self, v: str) -> bool:
        """Whether a variable of the source is a vector."""
        return isinstance(self.source.type_of(v), VectorType)


@backward(Input)
def _input(self: Backward, line: Input, g: str) -> None:
    pass


@backward(MatMul)
def _matmul(self: Backward, line: MatMul, g: str) -> None:
    x = self.value[line.vector]
    if x is not None:
        pair = (x, g) if line.transposed else (g, x)
        self.pairs.setdefault(line.matrix, []).append(pair)
    if line.vector in self.wanted:
        for part in self.transpose(line, g, self.temporary(line.vector)):
            if part is not None:
                self.add(line.vector, ONE, (part,))


@backward(Nonlin)
def _nonlin(self: Backward, line: Nonlin, g: str) -> None:
    args = [self.value[a] for a in line.args]
    types = [self.source.type_of(a) for a in line.args]
    vector = self.is_vector(line.out)
    for i, v in enumerate(line.args):
        if v not in self.wanted:
            continue
        slope = line.fn.partial(i)
        if slope is None:
            continue
        if isinstance(slope, Poly):
            products = _monomials(slope, args)
        else:
            products = [(ONE, (self.emit.nonlin(self.temporary(v), slope, args, types),))]
        for coef, factors in products:
            if vector and not self.is_vector(v):
                # a number shared by all coordinates: their gradients add up
                s = self.emit.inner(self.temporary(v), (g, *factors), False)
                self.add(v, coef, (s,))
            else:
                self.add(v, coef, (g, *factors))


def _monomials(poly: Poly, args: Sequence[str | None]) -> list[Product]:
    out: list[Product] = []
    for coef, powers in poly.terms:
        if any(a is None and p for a, p in zip(args, powers, strict=True)):
            continue
        out.append((coef, tuple(a for a, p in zip(args, powers, strict=True) for _ in range(p) if a is not None)))
    return out


@backward(Moment)
def _moment(self: Backward, line: Moment, g: str) -> None:
    dim = self.source.dim_of(line.args[0])
    if not line.mean:
        coef = ONE
    elif dim.is_fixed:
        coef = Scale.of(1 / dim.factor)
    else:
        coef = Scale.power(dim.name, -1)
    for i, v in enumerate(line.args):
        values = [self.value[a] for j, a in enumerate(line.args) if j != i]
        others = [x for x in values if x is not None]
        if len(others) < len(values):
            continue
        if not others:
            others = [self.emit.constant(self.source.type_of(v), ONE)]
        self.add(v, coef, (g, *others))


@backward(Outer)
def _outer(self: Backward, line: Outer, g: str) -> None:
    raise NotCoveredError(spell(line), line.out, "gradients through an optimizer's update are not part of the language",
                          "differentiate the network, not its training")
