"""Copies of a network at several inputs, forward and backward, as one program under a kernel's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tensorprog.errors import NotCoveredError
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.interp.backward import Backward
from tensorprog.interp.emit import NOUGHT, Emitter
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Normal,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

ZERO = Fraction(0)
Options = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix under the options: its law, and ``rate n^power``, learning rate times the squared multiplier."""

    law: Any
    rate: float
    power: Fraction

    @property
    def is_zero(self) -> bool:
        """Whether it starts at zero."""
        return self.law.value.is_zero if isinstance(self.law, Constant) else False


def weight(network: Program, line: Input, values: Mapping[str, Fraction], options: Mapping[str, Options]) -> Weight:
    """Return a matrix's law under the options, exactly."""
    law: Any = line.law
    if line.param is None:
        return Weight(law, 0.0, ZERO)
    n, param = network.scale_dim(line.out), line.param
    a, b, c = (values.get(f"{s}[{line.out}]", ZERO) if own is None else own
               for s, own in zip("abc", (param.a, param.b, param.c), strict=True))
    given, asked, speed = (next((Fraction(options[option][k]) for k in (line.out, param.role, "*")
                                 if k in options[option]), None) for option in ("variances", "multipliers", "rates"))
    m = Fraction(1) if asked is None else asked
    mean, variance = (law.value, NOUGHT) if isinstance(law, Constant) else (law.mean, law.variance)
    if given is not None:  # the whole number, whatever the sizes of axes are in the program's
        power = -2 * (a + b) if isinstance(law, Constant) else variance.exponent(network.growths, values) / n.growth
        variance = Scale.of(given) * Scale.power(n.name, power) * Scale.of(n.factor) ** -power
    mean, variance = mean * m, variance * m**2
    rate = float(m**2 * (1 if speed is None else speed)) if param.trainable else 0.0
    return Weight(Constant(mean) if variance.is_zero else Normal(mean, variance), rate, -(2 * a + c) * n.growth)


def laws(network: Program, values: Mapping[str, Fraction], options: Mapping[str, Options]) -> dict[str, Weight]:
    """Return every matrix under the options."""
    return {x.out: weight(network, x, values, options) for x in network.lines
            if isinstance(x, Input) and isinstance(x.type, MatrixType)}


def alike(network: Program, name: str) -> bool:
    """Return whether the coordinates of a vector along a fixed axis are independent and alike: rows of readouts."""
    line = network.line_of(name)
    if not isinstance(network.type_of(name), VectorType):
        return True
    if isinstance(line, MatMul):
        return {x.transposed for x in network.lines if isinstance(x, MatMul) and x.matrix == line.matrix} == {False}
    return isinstance(line, Nonlin) and all(alike(network, a) for a in line.args)


class Copies:
    """A network at two inputs, and the gradients of its outputs there, as one program.

    Args:
        network: the forward program of one input.
        weights: the matrices' laws and rates.
        inputs: the data that differs between the two.
        tags: what the names of each copy end with; a single copy keeps its data and its weights' laws.

    Attributes:
        program: the lines written so far.
        values: for each copy, the program's variable for each of the network's; None if it is exactly zero.
    """

    def __init__(self, network: Program, weights: Mapping[str, Weight], inputs: Sequence[str],
                 tags: Sequence[str] = ("#0", "#1")):
        self.network, self.weights, self.inputs, self.tags = network, weights, inputs, tags
        self.program = Program(network.dims.values(), unknowns=network.unknowns)
        self.emit = Emitter(self.program)
        self.trained = {w for w, x in weights.items() if x.rate}
        self.values = [self._forward(tag) for tag in tags]

    def _forward(self, tag: str) -> dict[str, str | None]:
        value: dict[str, str | None] = {}
        for line in self.network.lines:
            out, args = line.out + tag, [value[a] for a in line.args]
            if isinstance(line, Input):
                value[line.out] = self._input(line, tag)
            elif isinstance(line, MatMul):
                zero = self.weights[line.matrix].is_zero
                value[line.out] = None if zero else self.emit.matmul(out, line.matrix, args[1], line.transposed)
            elif isinstance(line, Moment):
                value[line.out] = self.emit.moment(out, args, line.mean)
            elif isinstance(line, Nonlin) and isinstance(line.fn, Poly):
                value[line.out] = self.emit.poly(out, (
                    (c, tuple(a for a, p in zip(args, powers, strict=True) for _ in range(p) if a is not None))
                    for c, powers in line.fn.terms
                    if not any(a is None and p for a, p in zip(args, powers, strict=True))))
            elif isinstance(line, Nonlin):
                value[line.out] = self.emit.nonlin(out, line.fn, args, [self.network.type_of(a) for a in line.args])
            else:
                raise NotCoveredError(spell(line), line.out, "a network cannot contain an optimizer's update",
                                      "write the forward pass only")
        return value

    def _input(self, line: Input, tag: str) -> str:
        if not tag:
            return self.program.add(line)
        if line.out in self.inputs:
            return self.program.add(Input(line.out + tag, line.type, Data()))
        if line.out not in self.program:
            law = self.weights[line.out].law if line.out in self.weights else line.law
            self.program.add(Input(line.out, line.type, law))
        return line.out

    def gradients(self, output: str, i: int) -> dict[str, list[tuple[str, str]]]:
        """Write the backward pass of (a coordinate of) an output in a copy; return by matrix the pairs (dh, x)."""
        reached = set()
        for line in self.network.lines:
            if any(a in reached or a in self.trained for a in line.args):
                reached.add(line.out)
        t = self.network.type_of(output)
        start = self.emit.constant(t, ONE)
        if isinstance(t, VectorType) and t.dim.factor != 1:
            start = f"first.{t.dim.name}"
            if start not in self.program:
                self.program.add(Input(start, t, Data(onehot=0)))

        def transposed(line: MatMul, g: str, out: str) -> list[str | None]:
            zero = self.weights[line.matrix].is_zero
            return [None if zero else self.emit.matmul(out, line.matrix, g, not line.transposed)]

        passed = Backward(self.emit, self.network, self.values[i], lambda v: f"d{output}.d{v}{self.tags[i]}",
                          transposed, frozenset(reached))
        passed.run({output: start})
        return {w: pairs for w, pairs in passed.pairs.items() if w in self.trained}

    def inner(self, x: str, y: str, mean: bool = False) -> str:
        """Write the sum (or mean) of products of two vectors."""
        x, y = sorted((x, y))
        name = f"{'mean' if mean else 'sum'}.{x}.{y}"
        if name not in self.program:
            self.program.add(Moment(name, (x, y), mean))
        return name
