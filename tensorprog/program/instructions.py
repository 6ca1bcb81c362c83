"""The closed set of instructions: Input, MatMul, Nonlin, Moment, Outer. One program line is one of them.

An instruction is a frozen value. It names its result (``out``) and its arguments; ``Program`` checks that they fit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from tensorprog.atoms.function import Function
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.program.dims import Dim

if TYPE_CHECKING:
    from tensorprog.atoms.rule import Rule

# ---------------------------------------------------------------------------------------------------- types


@dataclass(frozen=True, slots=True)
class ScalarType:
    """A number; as n grows it is Theta(n^e) for one exponent e."""

    def __str__(self) -> str:
        return "scalar"


@dataclass(frozen=True, slots=True)
class VectorType:
    """A vector along one axis."""

    dim: Dim

    def __str__(self) -> str:
        return f"vector {self.dim.name}"


@dataclass(frozen=True, slots=True)
class MatrixType:
    """A matrix of shape rows x cols: it maps vectors along ``cols`` to vectors along ``rows``."""

    rows: Dim
    cols: Dim

    def __str__(self) -> str:
        return f"matrix {self.rows.name} x {self.cols.name}"


Type = ScalarType | VectorType | MatrixType

# ----------------------------------------------------------------------------------------------------- laws


@dataclass(frozen=True, slots=True)
class Normal:
    """Independent entries N(mean, variance); entries of a matrix, or coordinates of a vector.

    ``mean`` and ``variance`` are Scales; variance 0 is a constant.
    """

    mean: Scale = Scale(Fraction(0))
    variance: Scale = ONE


@dataclass(frozen=True, slots=True)
class Joint:
    """The ``index``-th of several vectors whose coordinates are jointly N(means, covariance), iid over the axis."""

    group: tuple[str, ...]
    index: int
    means: tuple[Scale, ...]
    covariance: tuple[tuple[Scale, ...], ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """Every coordinate (or the scalar) is this number, a Scale."""

    value: Scale = ONE


@dataclass(frozen=True, slots=True)
class Data:
    """A vector along a fixed axis (or a scalar) that is data: the same at every width.

    ``values`` are its coordinates, exact numbers, or None: generic data, drawn once from N(0, 1) by name.
    ``onehot`` is the index of the coordinate that is 1, all others 0; None if it is not one-hot.
    """

    values: tuple[Fraction, ...] | None = None
    onehot: int | None = None


Law = Normal | Joint | Constant | Data


@dataclass(frozen=True, slots=True)
class Param:
    """What is asked for: the scaling of a trainable matrix ``W = n^-a w``, ``w ~ N(0, n^-2b)``, learning rate n^-c.

    Args:
        a, b, c: exponents that are given; None where unknown.
        init: "normal", or a constant start: "zero", "one".
        role: "input", "hidden", "output", "bias", "gain", "embedding" ... words for tables; never read by a rule.
        trainable: False for a frozen weight.
    """

    a: Fraction | None = None
    b: Fraction | None = None
    c: Fraction | None = None
    init: str = "normal"
    role: str = ""
    trainable: bool = True


# --------------------------------------------------------------------------------------------- instructions


@dataclass(frozen=True, slots=True)
class Input:
    """``out`` is given: a matrix, a vector or a scalar with its law; ``param`` marks a trainable matrix."""

    out: str
    type: Type
    law: Law
    param: Param | None = None

    @property
    def args(self) -> tuple[str, ...]:
        """Arguments: none."""
        return ()


class Parameter(Protocol):
    """An Input that is a trainable matrix: what ``program.params`` lists."""

    @property
    def out(self) -> str: ...
    @property
    def type(self) -> MatrixType: ...
    @property
    def law(self) -> Law: ...
    @property
    def param(self) -> Param: ...


@dataclass(frozen=True, slots=True)
class MatMul:
    """``out = matrix @ vector``, or ``matrix.T @ vector`` if transposed."""

    out: str
    matrix: str
    vector: str
    transposed: bool = False

    @property
    def args(self) -> tuple[str, ...]:
        """Arguments: the matrix, the vector."""
        return (self.matrix, self.vector)


@dataclass(frozen=True, slots=True)
class Nonlin:
    """``out = fn(args)`` coordinate by coordinate; a vector if any argument is one, else a scalar."""

    out: str
    fn: Function
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """``out = mean(prod(args))`` over the axis of the vectors ``args``; the sum if ``mean`` is False. A scalar."""

    out: str
    args: tuple[str, ...]
    mean: bool = True


@dataclass(frozen=True, slots=True)
class Outer:
    """A matrix from vectors: ``out = coef * Q(G_0, ..., G_t)``, ``G_s = gradient * sum u v^T`` over ``pairs[s]``.

    This is the nonlinear outer product of Tensor Programs IVb. ``rule`` is the optimizer's direction Q: an object
    with ``linear_weights(t)`` (Q is linear: ``sum_s weights[s] G_s``), or entrywise (see atoms.optimizers).

    Args:
        pairs: for each step s, the pairs (u, v) of vectors along rows and columns.
        gradient: the Scale in front of each ``u v^T`` in the gradient (1/batch and the multiplier n^-a).
        coef: the Scale in front of Q (minus the learning rate, times the multiplier).
        param: the trainable matrix that it updates.
        eps: Scale of the optimizer's epsilon; zero if it has none.
    """

    out: str
    rule: Rule
    pairs: tuple[tuple[tuple[str, str], ...], ...]
    coef: Scale = ONE
    gradient: Scale = ONE
    param: str = ""
    eps: Scale = field(default=Scale(Fraction(0)))

    @property
    def args(self) -> tuple[str, ...]:
        """Arguments: every vector of every pair."""
        return tuple(name for step in self.pairs for pair in step for name in pair)


Instruction = Input | MatMul | Nonlin | Moment | Outer
INSTRUCTIONS: tuple[type, ...] = (Input, MatMul, Nonlin, Moment, Outer)
