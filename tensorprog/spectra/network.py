"""Jacobians of networks at initialization, as linear maps: programs that apply them and their transposes to vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add, mul
from typing import Any

from tensorprog.atoms.function import Function
from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.program.build import Value, apply
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import Input, Instruction, MatMul, Moment, Nonlin, Outer, VectorType
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell
from tensorprog.spectra.moments import LinearMap


@dataclass(frozen=True)
class Jacobian(LinearMap):
    """The derivative of one vector of a program by another, or its transpose; see ``jacobian``.

    Args:
        program: the program.
        of, wrt: names of the vectors: entry (i, j) is ``d of_i / d wrt_j``.
        transposed: whether it is the transpose.
    """

    program: Program
    of: str
    wrt: str
    transposed: bool = False

    @property
    def rows(self) -> Dim:
        """The axis of what it gives."""
        return self.program.dim_of(self.wrt if self.transposed else self.of)

    @property
    def cols(self) -> Dim:
        """The axis of what it takes."""
        return self.program.dim_of(self.of if self.transposed else self.wrt)

    @property
    def T(self) -> Jacobian:
        """The transpose."""
        return replace(self, transposed=not self.transposed)

    @property
    def needs(self) -> tuple[str, ...]:
        """Both vectors."""
        return (self.of, self.wrt)

    def within(self, program: Program) -> Jacobian:
        """Return the same in another program."""
        return replace(self, program=program)

    def __matmul__(self, vector):
        if vector.dim != self.cols:
            raise ProgramError(f"({self}) @ {vector}", str(vector.type), f"{self} takes vectors along {self.cols.name}",
                               "use its transpose, .T")
        return self._backward(vector) if self.transposed else self._forward(vector)

    def __str__(self) -> str:
        return f"d {self.of} / d {self.wrt}" + ".T" * self.transposed

    def _lines(self) -> tuple[list[Instruction], set[str]]:
        """Return the lines through which one vector depends on the other, and their variables."""
        depends, lines = {self.wrt}, []
        for line in self.program.lines:
            if line.out != self.wrt and depends.intersection(line.args):
                depends.add(line.out)
                lines.append(line)
        wanted = {self.of}
        for line in reversed(lines):
            if line.out in wanted:
                wanted.update(a for a in line.args if a in depends)
        if self.wrt not in wanted:
            raise ProgramError(str(self), self.wrt, f"{self.of} does not depend on {self.wrt}", "take another vector")
        for line in lines:
            if line.out in wanted and isinstance(line, Outer):
                raise NotCoveredError(spell(line), line.out, "gradients through an optimizer's update are not part of "
                                      "the language", "take the Jacobian of the network, not of its training")
        return [x for x in lines if x.out in wanted], wanted

    def _forward(self, vector: Value) -> Value:
        lines, _ = self._lines()
        moved: dict[str, Value] = {self.wrt: vector}
        for line in lines:
            if isinstance(line, MatMul):
                matrix = self.program[line.matrix]
                moved[line.out] = (matrix.T if line.transposed else matrix) @ moved[line.vector]
            elif isinstance(line, Nonlin):
                moved[line.out] = reduce(add, (s * moved[a] for a, s in self._slopes(line) if a in moved))
            elif isinstance(line, Moment):
                average: Any = self.program.mean if line.mean else self.program.sum
                moved[line.out] = reduce(add, (average(reduce(mul, rest, moved[a]))
                                               for a, rest in self._others(line) if a in moved))
            moved[line.out] = moved[line.out]._variable()
        return moved[self.of]

    def _backward(self, vector: Value) -> Value:
        lines, wanted = self._lines()
        parts: dict[str, list[Value]] = {self.of: [vector]}
        for line in reversed(lines):
            g = reduce(add, parts.pop(line.out))._variable()
            if isinstance(line, MatMul):
                matrix = self.program[line.matrix]
                parts.setdefault(line.vector, []).append((matrix if line.transposed else matrix.T) @ g)
            elif isinstance(line, Nonlin):
                for a, s in self._slopes(line):
                    if a in wanted:
                        parts.setdefault(a, []).append(self._onto(a, s * g))
            elif isinstance(line, Moment):
                size = self.program.dim_of(line.args[0]) ** -1 if line.mean else ONE
                for a, rest in self._others(line):
                    if a in wanted:
                        whole = reduce(mul, rest, g * size)
                        ones = self.program._ones(self.program.dim_of(a))
                        parts.setdefault(a, []).append(whole if rest else whole * ones)
        return reduce(add, parts[self.wrt])._variable()

    def _onto(self, name: str, g: Any) -> Value:
        """Return the gradient of a variable: of a number that all coordinates share, their sum."""
        shared = isinstance(g.type, VectorType) and not isinstance(self.program.type_of(name), VectorType)
        return self.program.sum(g) if shared else g

    def _slopes(self, line: Nonlin) -> Iterator[tuple[str, Any]]:
        """Yield the arguments of a function with its derivatives by them, those that vanish left out."""
        args = [self.program[a] for a in line.args]
        for i, a in enumerate(line.args):
            slope = line.fn.partial(i)
            if slope is not None:
                yield a, _applied(slope, args)

    def _others(self, line: Moment) -> Iterator[tuple[str, list[Value]]]:
        """Yield every factor of a moment with the other factors."""
        for i, a in enumerate(line.args):
            yield a, [self.program[b] for j, b in enumerate(line.args) if j != i]


def _applied(fn: Function, args: Sequence[Value]) -> Any:
    if not isinstance(fn, Poly):
        return apply(fn, *args)
    terms: list[Any] = []
    for coef, powers in fn.terms:
        terms.append(reduce(mul, (a**k for a, k in zip(args, powers, strict=True) if k), coef))
    return reduce(add, terms)


def jacobian(program: Program, of: str | Value | None = None, wrt: str | Value | None = None) -> Jacobian:
    r"""Return the derivative of one vector of a program by another, both along growing axes.

    Of a network ``x_l = phi(W_l x_{l-1})`` it is ``J = D_L W_L ... D_1 W_1`` with ``D_l = diag(phi'(h_l))``; the
    diagonals are made of the same weights, and the engine does not assume that they are free of them.

    Args:
        program: any program, without optimizer steps between the two vectors.
        of: the vector that is differentiated; by default the first output.
        wrt: by which one; by default the first random vector, or else the first vector along a growing axis.

    Returns:
        A ``LinearMap`` J: ``J @ v`` and ``J.T @ u`` write lines; ``singular_values(J)`` is the spectrum of ``J.T J``.

    Raises:
        ProgramError: there are no such vectors, their axes are fixed, or one does not depend on the other.

    Example:
        >>> from tensorprog.spectra.moments import singular_values
        >>> J = jacobian(feedforward(2, "relu", weight=2))
        >>> print(J, "on", singular_values(J, 14).support)
        d x2 / d x0 on ...

    Source: pennington2017resurrecting (with free independence assumed), yang2020matrix (with it proven).
    """
    names: list[Any] = [getattr(v, "name", v) for v in (of, wrt)]
    if names[0] is None:
        names[0] = next(iter(program.outputs), None)
    if names[1] is None:
        growing = [x for x in program.lines if isinstance(t := program.type_of(x.out), VectorType) and
                   not t.dim.is_fixed]
        names[1] = next((x.out for x in sorted(growing, key=lambda x: not isinstance(x, Input))), None)
    for name in names:
        if name is None or program.dim_of(name).is_fixed:
            raise ProgramError("jacobian", name, "a spectrum in the limit needs a vector along a growing axis",
                               "name two: jacobian(program, of=..., wrt=...)")
    found = Jacobian(program, str(names[0]), str(names[1]))
    found._lines()
    return found


def feedforward(depth: int, activation: str | Function = "relu", *, weight: Any = 1, bias: Any = 0,
                variance: Any = 1) -> Program:
    """Return a network of equal widths at initialization: ``h_l = W_l x_{l-1} + b_l``, ``x_l = phi(h_l)``.

    Args:
        depth: the number L of layers.
        activation: a nonlinearity's name or record.
        weight: sigma_w^2, exact: entries of ``W_l`` are N(0, sigma_w^2 / n).
        bias: sigma_b^2, exact: entries of ``b_l`` are N(0, sigma_b^2).
        variance: of the input's coordinates, exact; the fixed point of the depth makes all layers alike.

    Example:
        >>> feedforward(3, "tanh").outputs
        ('x3',)
    """
    if depth < 1:
        raise ProgramError("feedforward", depth, "a network has at least one layer", "use depth >= 1")
    p = Program()
    n = p.dim("n")
    phi = nonlinearity(activation) if isinstance(activation, str) else activation
    x: Value = p.vector("x0", n, variance=variance)
    for layer in range(1, depth + 1):
        h = p.matrix(f"W{layer}", n, n, variance=Scale.of(weight) * n**-1) @ x
        if bias:
            h = h + p.vector(f"b{layer}", n, variance=bias)
        x = p.let(f"x{layer}", apply(phi, p.let(f"h{layer}", h)))
    p.output(x)
    return p.freeze()


__all__ = ["Jacobian", "feedforward", "jacobian"]
