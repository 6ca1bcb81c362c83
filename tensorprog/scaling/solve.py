"""Solving for the exponents of a network under full alignment: every unknown is set where it is first used.

In the aligned calculus every contraction is a law of large numbers and every product with a matrix may align with its
transpose. Each unknown then has one equation, that its line be Theta(1):

    init of W (D_out x D_in):  std = n^-max(D_in/2, D_in - D_out/2) / |x|,
    learning rate of W:        lr such that the first update times its input is Theta(1),
    multiplier n^-alpha:       its line is Theta(1).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tensorprog.exponents.scale import Scale
from tensorprog.exponents.terms import ZERO, leading, scaled
from tensorprog.interp.scaling import Gaussian, Scaling, Update
from tensorprog.interp.unroll import Trajectory, symbol
from tensorprog.program.instructions import Constant, Input, MatMul, MatrixType, Nonlin, Outer
from tensorprog.program.poly import Poly
from tensorprog.program.program import spell


@dataclass(frozen=True, slots=True)
class Equation:
    """Why an unknown has its value: the line that had to be Theta(1), and the sizes that enter.

    ``law`` is "CLT" or "LLN" (or "sum" over a fixed axis), ``terms`` are (words, exponent) that add to the exponent
    which the unknown cancels.
    """

    unknown: str
    value: Fraction
    line: str
    law: str
    terms: tuple[tuple[str, Fraction], ...]


class Solver(Scaling):
    """The aligned calculus that fills in unknowns on its way.

    Args:
        trajectory: an unrolled training with at least one step.
        values: the unknowns that are given; those left out are solved for.
        aligned: False solves in the true calculus instead, which at initialization is what SP and NTP do.

    Attributes:
        values: all that is known at the end. equations: why. free: declared unknowns that nothing determines.
    """

    def __init__(self, trajectory: Trajectory, values: dict[str, Fraction], *, aligned: bool = True):
        self.equations: dict[str, Equation] = {}
        self.free: set[str] = set()
        self._open: dict[str, Input] = {}
        super().__init__(trajectory.program, dict(values), aligned=aligned)

    def step(self, line) -> None:
        """Read one line; where it holds an unknown, set that first."""
        if isinstance(line, Input) and line.param is not None and isinstance(line.type, MatrixType):
            self._declare(line)
        elif isinstance(line, MatMul) and line.matrix in self._open:
            self._initialize(line)
        elif isinstance(line, Nonlin) and isinstance(line.fn, Poly):
            for scale, _ in line.fn.terms:
                self._multiplier(line, scale)
        elif isinstance(line, Outer):
            self._rate(line)
        super().step(line)
        if isinstance(line, MatMul) and isinstance(self.states.get(line.matrix), Update):
            self._maximal(line)

    def _known(self, name: str) -> bool:
        return name in self.values

    def _set(self, name: str, value: Fraction, line, law: str, terms) -> None:
        self.values[name] = value
        self.equations[name] = Equation(name, value, spell(line), law, tuple(terms))

    def _declare(self, line: Input) -> None:
        a, b = symbol("a", line.out), symbol("b", line.out)
        if line.param.a is None and not self._known(a):
            # the gauge of Table 3; the forms are made from it at the end
            self.values[a] = ZERO
        if line.param.b is None and not self._known(b):
            self.values[b] = ZERO
            if not isinstance(line.law, Constant):
                self._open[line.out] = line

    def _initialize(self, line: MatMul) -> None:
        matrix: Gaussian = self.states[line.matrix]
        x = leading(self.states[line.vector])
        if x is None:
            return
        source = self._open.pop(line.matrix)
        d_in, d_out = (matrix.rows, matrix.cols) if line.transposed else (matrix.cols, matrix.rows)
        clt, lln = d_in / 2, d_in - d_out / 2
        gain, law = (lln, "LLN") if lln > clt else (clt, "CLT" if d_in else "sum")
        words = f"sum over {d_in and 'a growing' or 'a fixed'} axis ({law})"
        b = x + gain + (matrix.std or ZERO)
        self._set(symbol("b", source.out), b, line, law, [(f"size of {line.vector}", x), (words, gain)])
        matrix.std = (matrix.std or ZERO) - b

    def _multiplier(self, line: Nonlin, scale: Scale) -> None:
        for name in scale.symbols:
            if self._known(name):
                continue
            self.values[name] = ZERO
            slope = -self.coefficient(scale)
            self.values[name] = Fraction(1)
            slope += self.coefficient(scale)
            self.values[name] = ZERO
            if not slope:
                self.free.add(name)
                continue
            super().step(line)
            e = leading(self.terms(line.out))
            del self.states[line.out]
            if e is None:
                continue
            self._set(name, -e / slope, line, self.reasons[line.args[0]].law if line.args else "sum",
                      [(f"size of {', '.join(line.args)}", e)])

    def _rate(self, line: Outer) -> None:
        eps = symbol("eps", line.param)
        sizes = [leading(self.states[u]) + leading(self.states[v]) for s in line.pairs for u, v in s
                 if self.states[u] and self.states[v]]
        if eps in line.eps.symbols and not self._known(eps) and sizes:
            gradient = max(sizes) + self.coefficient(line.gradient)
            self._set(eps, -gradient, line, "product", [("size of the gradient's entries", gradient)])
        c = symbol("c", line.param)
        if c in line.coef.symbols and not self._known(c):
            self.values[c] = ZERO
            self.free.add(c)

    def _maximal(self, line: MatMul) -> None:
        update = self.program.line_of(line.matrix)
        c = symbol("c", update.param)
        state = self.states[line.out]
        if c not in self.free or not state:
            return
        e = leading(state)
        reason = self.reasons[line.out]
        pairs = [pair for s in update.pairs for pair in s]
        u, v = next((pair for pair in pairs if pair[1] == reason.via), pairs[0])
        dim = self.program.type_of(line.vector).dim
        words = [(f"size of the update's entries ({u} x {v})", e - leading(self.terms(line.vector)) - dim.growth),
                 (f"size of {line.vector}", leading(self.terms(line.vector))),
                 (f"sum over {dim.name} ({reason.law})", dim.growth)]
        self.free.discard(c)
        self._set(c, e, line, reason.law, words)
        # the update and this product were read at c = 0
        for piece in self.states[line.matrix].pieces:
            piece.size -= e
        self.states[line.out] = scaled(state, -e)
