"""Kernels by the limit engine, pair by pair: what the recursion has no array formula for, or has to sample.

Two copies of the network, at two inputs, forward and (for tangent kernels) backward, are one program, and its limit is
an entry of the kernel:

    NNGP    E f f' of outputs that are Gaussian in the limit, E Z Z' of a coordinate along a width,
    NTK     sum over weights of rate * <dh, dh'> <x, x'>, over all products h = W x.

Source: yang2020tp2 (tangent kernels without gradient independence), yang2020matrix (Master Theorem).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.gauss.chain import integrals
from tensorprog.gauss.quadrature import within
from tensorprog.interp.limit import Limits
from tensorprog.kernels.copies import ZERO, Copies, Options, Weight, alike, laws
from tensorprog.program.instructions import (
    MatMul,
    MatrixType,
    Nonlin,
    Normal,
    VectorType,
)
from tensorprog.program.needed import needed
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

#: Seconds after which a pair of inputs counts as not covered, unless it is asked for.
BUDGET = 20.0
#: An input: exact coordinates by the data's name.
Point = Mapping[str, tuple[Fraction, ...]]


@dataclass(frozen=True, slots=True)
class Mean:
    """A covariance that is a moment: ``factor n^power`` times the program's variable ``name``; None: zero."""

    name: str | None
    factor: float = 1.0
    power: Fraction = ZERO


def pairwise(kind: str, network: Program, values: Mapping[str, Fraction], outputs: Sequence[str],
             inputs: Sequence[str], options: Mapping[str, Options], error: NotCoveredError) -> Pairwise:
    """Return the kernel pair by pair where the recursion raised an error: that one if this does no better."""
    try:
        return Pairwise(kind, network, values, outputs, inputs, options, budget=BUDGET)
    except NotCoveredError:
        raise error from None


class Pairwise:
    """A kernel whose entries are limits of a program of two copies.

    Args:
        kind: "nngp" or "ntk".
        network: the forward program of one input.
        values: a rational for every unknown exponent.
        outputs: the variables.
        inputs: the data that differs between inputs.
        options: "variances", "multipliers", "rates", each by weight, role or "*".
        budget: seconds for the first pair of inputs; None: as long as it takes.

    Attributes:
        rank: over how many Gaussians the largest integral is that has no closed form, of entries so far.
        known: entries with their errors by the pair of inputs.

    Raises:
        NotCoveredError: the theory does not cover the network, tried at two generic inputs.

    Source: yang2020tp2, yang2020matrix.
    """

    def __init__(self, kind: str, network: Program, values: Mapping[str, Fraction], outputs: Sequence[str],
                 inputs: Sequence[str], options: Mapping[str, Options], budget: float | None = None):
        self.kind, self.network, self.values = kind, network, values
        self.outputs, self.inputs = tuple(outputs), tuple(inputs)
        self.rank = 0
        self.known: dict[tuple, np.ndarray] = {}
        self.copies = Copies(network, laws(network, values, options), self.inputs)
        for name in self.outputs:
            self._check(name)
        if kind == "ntk":
            pairs = {(name, i): self.copies.gradients(name, i) for name in self.outputs for i in (0, 1)}
            self.plan = {(a, b): self._tangents(pairs[a, 0], pairs[b, 1]) for a in self.outputs for b in self.outputs}
            wanted = [x for products in self.plan.values() for _, u, v in products for x in (u, v)]
        else:
            self.plan = {(a, b): self._outputs(a, b) for a in self.outputs for b in self.outputs}
            wanted = [x for made in self.plan.values() for x in ((made.name,) if isinstance(made, Mean) else made)
                      if x is not None]
        self.program = needed(self.copies.program, wanted)
        with within(budget):
            self.entry(*self._generic())

    @property
    def method(self) -> str:
        """How an entry is found."""
        return "pair by pair, " + ("closed form" if not self.rank else "quadrature" if self.rank < 4 else "sampling")

    # ------------------------------------------------------------------------------------------ the program

    def _check(self, name: str) -> None:
        t, line = self.network.type_of(name), spell(self.network.line_of(name))
        if isinstance(t, MatrixType):
            raise ProgramError(line, name, "a matrix is no output", "take a product with it")
        if isinstance(t, VectorType) and not t.dim.is_fixed and self.kind == "ntk":
            raise NotCoveredError(line, name, "a vector along a width has no tangent kernel",
                                  "read it out: f = V @ x, V : 1 x n")
        if isinstance(t, VectorType) and t.dim.is_fixed and t.dim.factor != 1 and not (
                self.kind == "nngp" and self._readout(name) or alike(self.network, name)):
            raise NotCoveredError(line, name, "its coordinates have kernels of their own",
                                  "take one number: g = sum(e * f), e a one-hot input")

    def _readout(self, name: str) -> tuple[MatMul, Scale] | None:
        """Return an output's product with a centred matrix, and what it is multiplied by, if coordinate by coordinate
        the vector in it does not depend on that matrix: then it is Gaussian (interp/sums.py)."""
        line, factor = self.network.line_of(name), ONE
        while isinstance(line, Nonlin) and isinstance(line.fn, Poly) and [p for _, p in line.fn.terms] == [(1,)]:
            line, factor = self.network.line_of(line.args[0]), factor * line.fn.terms[0][0]
        if not isinstance(line, MatMul) or not self.network.dim_of(name).is_fixed or not self._wide(line.vector):
            return None
        law = self.copies.weights[line.matrix].law
        centred = isinstance(law, Normal) and law.mean.is_zero
        return (line, factor) if centred and line.matrix not in self._behind(line.vector) else None

    def _wide(self, name: str) -> bool:
        t = self.network.type_of(name)
        return isinstance(t, VectorType) and not t.dim.is_fixed

    def _behind(self, name: str) -> set[str]:
        """Return what a vector depends on; not what goes into a matrix between widths that is used one way only."""
        ways: dict[str, set[bool]] = {}
        for line in self.network.lines:
            if isinstance(line, MatMul):
                ways.setdefault(line.matrix, set()).add(line.transposed)
        found, stack = set(), [name]
        while stack:
            line = self.network.line_of(x := stack.pop())
            found.add(x)
            if not (isinstance(line, MatMul) and len(ways[line.matrix]) == 1
                    and not any(d.is_fixed for d in self.network.axes_of(line.matrix))):
                stack += [a for a in line.args if a not in found]
        return found

    def _outputs(self, a: str, b: str) -> Mean | tuple[str | None, ...]:
        """Return what E a b' is made of: a mean, or the names of two numbers."""
        readouts = self._readout(a), self._readout(b)
        if readouts[0] and readouts[1]:
            (one, scale), (two, other) = readouts[0], readouts[1]
            if (one.matrix, one.transposed) == (two.matrix, two.transposed):
                x, y = self.copies.values[0][one.vector], self.copies.values[1][two.vector]
                scale = scale * other * self.copies.weights[one.matrix].law.variance
                return Mean(None if x is None or y is None else self.copies.inner(x, y), *self._scale(scale))
        x, y = self.copies.values[0][a], self.copies.values[1][b]
        axes = [t.dim if isinstance(t := self.network.type_of(z), VectorType) else None for z in (a, b)]
        if all(d is None or d.is_fixed for d in axes):
            return (x, y)
        if x is None or y is None or axes[0] != axes[1]:  # coordinates of different axes are independent
            return Mean(None)
        return Mean(self.copies.inner(x, y, mean=True))

    def _scale(self, scale: Scale) -> tuple[float, Fraction]:
        """Return a coefficient as (number, power of n)."""
        ones = {d.name: d.factor for d in self.network.dims.values()}
        number = float(scale.number)
        for name, power in scale.powers:
            number *= float(ones[name]) ** float(power.value(self.values))
        return number, scale.exponent(self.network.growths, self.values)

    def _tangents(self, left, right) -> list[tuple[Weight, str, str]]:
        inner = self.copies.inner
        return [(self.copies.weights[w], inner(g, h), inner(x, y)) for w, pairs in left.items()
                for g, x in pairs for h, y in right.get(w, ())]

    # -------------------------------------------------------------------------------------------- its limits

    def _generic(self) -> tuple[Point, Point]:
        """Return two inputs that nothing is special about."""
        one: dict[str, tuple[Fraction, ...]] = {}
        two: dict[str, tuple[Fraction, ...]] = {}
        k = 1
        for name in self.inputs:
            t = self.network.type_of(name)
            size = int(t.dim.factor) if isinstance(t, VectorType) else 1
            numbers = [Fraction(float(np.sin(k + j))) for j in range(2 * size)]
            one[name], two[name] = tuple(numbers[::2]), tuple(numbers[1::2])
            k += 2 * size
        return one, two

    def entry(self, x: Point, y: Point) -> np.ndarray:
        """Return the kernel of two inputs and its error, (2, outputs, outputs), the first output at x."""
        key = tuple(tuple(z[k] for k in self.inputs) for z in (x, y))
        if key not in self.known:
            found = self._entry(x, y)
            self.known[key], self.known[key[::-1]] = found, found.swapaxes(1, 2)
        return self.known[key]

    def _entry(self, x: Point, y: Point) -> np.ndarray:
        data = {f"{k}#{i}": z[k] for k in self.inputs for i, z in enumerate((x, y))}
        limits = Limits(self.program, self.values, data=data)
        found = np.empty((2, len(self.outputs), len(self.outputs)))
        for i, a in enumerate(self.outputs):
            for j, b in enumerate(self.outputs):
                reading = Reading(self.kind, spell(self.network.line_of(a)), limits)
                compute: Callable = reading.tangent if self.kind == "ntk" else reading.covariance
                found[0, i, j] = compute(self.plan[a, b])
                found[1, i, j] = reading.error
                self.rank = max(self.rank, reading.rank)
        return found

    def _points(self, data: Mapping[str, np.ndarray], n: int) -> list[Point]:
        """Return the inputs, exactly."""
        return [{k: tuple(Fraction(float(v)) for v in np.ravel(data[k][i])) for k in self.inputs} for i in range(n)]

    def estimate(self, one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray] | None, n1: int, n2: int, *,
                 workers: int | None = None, progress: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the kernel of all pairs and the errors of its integrals, both (outputs, outputs, N1, N2).

        Args:
            one, two: inputs by name, (N, d) or (N,); without ``two`` they are the same, and each pair is taken once.
        """
        rows = self._points(one, n1)
        cols = rows if two is None else self._points(two, n2)
        pairs = [(i, j) for i in range(n1) for j in range(i if two is None else 0, n2)]
        whole = np.empty((2, len(self.outputs), len(self.outputs), n1, n2))
        for done, (i, j) in enumerate(pairs, 1):
            whole[..., i, j] = self.entry(rows[i], cols[j])
            if two is None:
                whole[..., j, i] = whole[..., i, j].swapaxes(1, 2)
            if progress is not None:
                progress(done, len(pairs))
        return whole[0], whole[1]

    def diagonals_of(self, one: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return K(x, x) of every input and its error, both (outputs, outputs, N)."""
        found = np.stack([self.entry(x, x) for x in self._points(one, n)], axis=-1)
        return found[0], found[1]


class Reading:
    """A kernel's entry from the limits of a program.

    Attributes:
        error, rank: of the integrals that were needed: the sum of their errors, the largest number of Gaussians.
    """

    def __init__(self, kind: str, line: str, limits: Limits):
        self.kind, self.line, self.limits = kind, line, limits
        self.error, self.rank = 0.0, 0

    def found(self, name: str) -> tuple[Any, Fraction | None]:
        """Return the normal form's variable (or a number), and its exponent; None: it is exactly zero."""
        became = self.limits.names(name)
        if isinstance(became, tuple):
            became = became[0]
        if not isinstance(became, str):
            return became, ZERO if became else None
        return became, self.limits.exponent(became)

    def number(self, x: Any) -> float:
        """Return the value of a number of the limits, or of one of its variables; notes its integrals' errors."""
        limits = self.limits
        number = limits.scalar(x) if isinstance(x, str) else x
        if isinstance(number, Fraction):
            return float(number)
        chain = limits.chain
        if chain.is_free(number):
            line = spell(limits.form.source.program.line_of(x)) if isinstance(x, str) else self.line
            raise NotCoveredError(line, str(number)[:80], "it stays random in the limit", "use a parametrization in "
                                  "which it vanishes, or leave it out")
        value = float(chain.value(number))
        for formula in (number, *_behind(chain, number)):
            for node in integrals(formula):
                found = node.xreplace({s: _float(chain.value(s)) for s in node.free_symbols})
                for part in integrals(found):  # numbers may have come out of it
                    factor = abs(complex(found.xreplace({part: 1})))
                    self.error += 10 * max(1.0, factor) * part.estimate(1e-13).error  # for sensitivities of up to 10
                    self.rank = max(self.rank, len(part.zs))
        return value

    def tangent(self, products: Sequence[tuple[Weight, str, str]]) -> float:
        """Return ``sum rate n^power <dh, dh'> <x, x'>``."""
        total = 0.0
        for w, u, v in products:
            (one, e), (two, g) = self.found(u), self.found(v)
            if e is None or g is None or e + g + w.power < 0:
                continue
            total += w.rate * self.number(one) * self.number(two)
            self.bounded(e + g + w.power)
        return total

    def bounded(self, e: Fraction) -> None:
        """Refuse what grows with n."""
        if e > 0:
            rate = "a learning rate that falls with n: c larger, or parametrization('sp').with_lr(1)"
            raise NotCoveredError(self.line, f"n^({e})", f"the {self.kind} grows with n",
                                  f"use 'ntp', or {rate}" if self.kind == "ntk" else "use 'ntp' or 'sp'")

    def covariance(self, made: Mean | tuple[str | None, ...]) -> float:
        """Return ``E f f'``, from a mean or from two numbers."""
        names = (made.name,) if isinstance(made, Mean) else made
        found = [self.found(name) for name in names if name is not None]
        sizes = [e for _, e in found if e is not None]
        if len(sizes) < len(names):
            return 0.0
        if isinstance(made, Mean):
            e = sizes[0] + made.power
            number = made.factor * self.number(found[0][0]) if e >= 0 else 0.0
            self.bounded(e)
            return number
        if sum(sizes) < 0:
            return 0.0
        limits, sums = self.limits, self.limits.sums
        numbers = [limits.scalar(x) if isinstance(x, str) else x for x, _ in found]
        for (x, _), number in zip(found, numbers, strict=True):
            mean, variance = sums.moments(number, x) if isinstance(x, str) else (number, ZERO)
            if limits.chain.is_zero(variance):
                raise NotCoveredError(self.line, str(number)[:80], "this is not random in the limit",
                                      "take the output of a matrix: f = V @ x")
            if not limits.chain.is_zero(mean):
                raise NotCoveredError(self.line, str(mean)[:80], "in the limit this is Gaussian with a mean, and a "
                                      "kernel is that of centred outputs", "take the mean out")
        self.bounded(sum(sizes, ZERO))
        return self.number(sums.covariance(*numbers))


def _float(x: Any) -> Any:
    import sympy

    return sympy.Float(x, 17)


def _behind(chain: Any, number: Any) -> list[Any]:
    """Return the formulas of the named quantities that a number depends on."""
    found: dict[Any, Any] = {}
    stack = [number]
    while stack:
        for s in stack.pop().free_symbols:
            if s in chain.definitions and s not in found:
                found[s] = chain.definitions[s]
                stack.append(found[s])
    return list(found.values())
