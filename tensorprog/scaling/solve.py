"""Solving for the exponents of a network under full alignment: every unknown is set where it is first used.

In the aligned calculus every contraction is a law of large numbers and every product with a matrix may align with its
transpose. Each unknown then has one equation, that its line be Theta(1):

    init of W (D_out x D_in):  std = n^-max(D_in/2, D_in - D_out/2) / |x|,
    learning rate of W:        lr such that the first update times its input is Theta(1),
    multiplier n^-alpha:       its line is Theta(1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from tensorprog.exponents.scale import Scale
from tensorprog.exponents.terms import ZERO, leading, scaled
from tensorprog.interp.expansion import Undefined
from tensorprog.interp.scaling import Gaussian, Scaling, Update
from tensorprog.interp.unroll import Trajectory, symbol
from tensorprog.program.instructions import Constant, Input, MatMul, Nonlin, Outer, Param
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
        stuck: the first line that should have set an unknown, but has an argument without exponent; else None.
        idle: the random weights that have met nothing but zeros, whose initialization is therefore open.
        late: the equations of those that gradients passed through before.
    """

    values: dict[str, Fraction]

    def __init__(self, trajectory: Trajectory, values: Mapping[str, Fraction], *, aligned: bool = True,
                 known: Mapping[str, Equation] | None = None):
        self.equations: dict[str, Equation] = dict(known or {})
        self.late: dict[str, Equation] = {}
        self._passed: set[str] = set()
        self._forward = {(x.matrix, x.transposed) for x in trajectory.network.lines if isinstance(x, MatMul)}
        self.free: set[str] = set()
        self.stuck: str | None = None
        self.idle: dict[str, Input] = {}
        super().__init__(trajectory.program, dict(values), aligned=aligned)

    def step(self, line) -> None:
        """Read one line; where it holds an unknown, set that first."""
        if any(isinstance(self.states[a], Undefined) for a in line.args):
            if self.stuck is None and self._sets_unknown(line):
                self.stuck = line.out
            super().step(line)
            return
        if isinstance(line, Input) and line.param is not None:
            self._declare(line, line.param)
        elif isinstance(line, Input) and isinstance(line.law, Constant):
            self._multiplier(line, line.law.value)
        elif isinstance(line, MatMul) and line.matrix in self.idle:
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

    def _sets_unknown(self, line) -> bool:
        if isinstance(line, MatMul):
            return line.matrix in self.idle
        if isinstance(line, Nonlin) and isinstance(line.fn, Poly):
            return not all(self._known(s) for scale, _ in line.fn.terms for s in scale.symbols)
        return isinstance(line, Outer) and not all(self._known(s) for s in (*line.coef.symbols, *line.eps.symbols))

    def _set(self, name: str, value: Fraction, line, law: str, terms) -> None:
        self.values[name] = value
        self.equations[name] = Equation(name, value, spell(line), law, tuple(terms))

    def _declare(self, line: Input, param: Param) -> None:
        a, b = symbol("a", line.out), symbol("b", line.out)
        if param.a is None and not self._known(a):
            # the gauge of Table 3; the forms are made from it at the end
            self.values[a] = ZERO
        if param.b is None and not self._known(b):
            self.values[b] = ZERO
            if not isinstance(line.law, Constant):
                self.idle[line.out] = line

    def _initialize(self, line: MatMul) -> None:
        matrix: Gaussian = self.states[line.matrix]
        x = leading(self.states[line.vector])
        if x is None:
            return
        if (line.matrix, line.transposed) not in self._forward:
            self._passed.add(line.matrix)
            return
        source = self.idle.pop(line.matrix)
        d_in, d_out = (matrix.rows, matrix.cols) if line.transposed else (matrix.cols, matrix.rows)
        clt, lln = d_in / 2, d_in - d_out / 2
        gain, law = (lln, "LLN") if lln > clt else (clt, "CLT" if d_in else "sum")
        words = f"sum over {d_in and 'a growing' or 'a fixed'} axis ({law})"
        b = x + gain + (matrix.std or ZERO)
        self._set(symbol("b", source.out), b, line, law, [(f"size of {line.vector}", x), (words, gain)])
        matrix.std = (matrix.std or ZERO) - b
        if source.out in self._passed:
            name = symbol("b", source.out)
            self.late[name] = self.equations[name]

    def _multiplier(self, line: Input | Nonlin, scale: Scale) -> None:
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
            self._set(name, -e / slope, line, self.reasons[line.args[0]].law if line.args else "product",
                      [(f"size of {', '.join(line.args) or 'the rest'}", e)])

    def _rate(self, line: Outer) -> None:
        eps = symbol("eps", line.param)
        sizes = [x + y for s in line.pairs for u, v in s
                 if (x := leading(self.states[u])) is not None and (y := leading(self.states[v])) is not None]
        if eps in line.eps.symbols and not self._known(eps) and sizes:
            gradient = max(sizes) + self.coefficient(line.gradient)
            self._set(eps, -gradient, line, "product", [("size of the gradient's entries", gradient)])
        c = symbol("c", line.param)
        if c in line.coef.symbols and not self._known(c):
            self.values[c] = ZERO
            self.free.add(c)

    def _maximal(self, line: MatMul) -> None:
        update = self.program.line_of(line.matrix)
        assert isinstance(update, Outer)  # its state is an Update
        c = symbol("c", update.param)
        state = self.states[line.out]
        e, x = leading(state), leading(self.terms(line.vector))
        if c not in self.free or e is None or x is None:
            return
        reason = self.reasons[line.out]
        pairs = [pair for s in update.pairs for pair in s]
        u, v = next((pair for pair in pairs if pair[1] == reason.via), pairs[0])
        dim = self.program.dim_of(line.vector)
        words = [(f"size of the update's entries ({u} x {v})", e - x - dim.growth),
                 (f"size of {line.vector}", x),
                 (f"sum over {dim.name} ({reason.law})", dim.growth)]
        self.free.discard(c)
        self._set(c, e, line, reason.law, words)
        # the update and this product were read at c = 0
        for piece in self.states[line.matrix].pieces:
            piece.size -= e
        self.states[line.out] = scaled(state, -e)
