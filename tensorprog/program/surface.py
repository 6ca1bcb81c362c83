"""The methods with which a program is written by hand: declarations, moments, names. ``Program`` inherits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from typing import Any, TypeAlias

from tensorprog.errors import ProgramError
from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.program import build
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    Instruction,
    Joint,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Normal,
    Param,
    ScalarType,
    VectorType,
)
from tensorprog.program.numbers import ALMOST_ZERO, coefficient, sign

ZERO = Scale(Fraction(0))

#: What a coefficient may be given as: an exact number (of sympy too), a dimension, or a power of one.
Exact: TypeAlias = int | Fraction | Dim | Scale | Any


class Surface:
    """Abstract: what a ``Program`` offers beyond its lines. Every method that declares returns a handle."""

    _dims: dict[str, Dim]
    _lines: list[Instruction]
    unknowns: tuple[str, ...]

    def _init_surface(self) -> None:
        self._known: dict[Instruction, str] = {}
        self._indexed = 0

    # -------------------------------------------------------------------------------------- declarations

    def matrix(self, name: str, rows: Dim, cols: Dim, *, variance: Exact | None = None,
               mean: Exact = 0) -> build.Matrix:
        """Declare a matrix of independent entries N(mean, variance).

        Args:
            rows, cols: its shape, dimensions of this program.
            variance: an exact number or Scale, order 1/cols by default.
            mean: an exact number or Scale.

        Raises:
            ProgramError: if the name is taken, a dimension is not declared or the variance is negative.

        Example:
            >>> from tensorprog.program.program import Program
            >>> p = Program()
            >>> n = p.dim("n")
            >>> p.matrix("W", n, n), p.line_of("W").law.variance
            (<matrix n x n: W>, Scale(number=Fraction(1, 1), powers=(('n', Affine('-1')),)))
        """
        default = cols**-1 if variance is None and isinstance(cols, Dim) else variance
        law = Normal(coefficient(mean, "a mean"), _variance(name, default))
        return self[self.add(Input(name, MatrixType(_dim(name, rows), _dim(name, cols)), law))]

    def vector(self, name: str, dim: Dim, *, mean: Exact = 0, variance: Exact = 1) -> build.Vector:
        """Declare a vector of independent coordinates N(mean, variance), of order 1 by default."""
        law = Normal(coefficient(mean, "a mean"), _variance(name, variance))
        return self[self.add(Input(name, VectorType(_dim(name, dim)), law))]

    def vectors(self, names: str | Sequence[str], dim: Dim, *, covariance: Sequence[Sequence],
                means: Sequence | None = None) -> tuple[build.Vector, ...]:
        """Declare vectors whose coordinates are jointly Gaussian, independent over the axis.

        Args:
            names: ``"u v"`` or a sequence.
            covariance: symmetric, positive semidefinite, one row a vector, exact.
            means: one exact number a vector, zeros by default.

        Raises:
            ProgramError: if the covariance has the wrong shape, is not symmetric or not positive semidefinite.

        Example:
            >>> from tensorprog.program.program import Program
            >>> p = Program()
            >>> u, v = p.vectors("u v", p.dim("n"), covariance=[[1, Fraction(1, 2)], [Fraction(1, 2), 1]])
            >>> p.line_of("v").law.index
            1
        """
        group = tuple(names.replace(",", " ").split()) if isinstance(names, str) else tuple(names)
        spelled = f"vector {', '.join(group)}"
        cov = tuple(build.exact_sequence(row, "a covariance") for row in covariance)
        mu = (ZERO,) * len(group) if means is None else build.exact_sequence(means, "a mean")
        if len(set(group)) != len(group):
            raise ProgramError(spelled, " ".join(group), "a name occurs twice", "use different names")
        if len(cov) != len(group) or any(len(row) != len(group) for row in cov) or len(mu) != len(group):
            raise ProgramError(
                spelled,
                f"{len(cov)} rows",
                f"{len(group)} vectors have a {len(group)} x {len(group)} covariance and {len(group)} means",
                "give one row, one column and one mean each",
            )
        if any(cov[i][j] != cov[j][i] for i in range(len(group)) for j in range(i)):
            raise ProgramError(
                spelled, "covariance", "a covariance is symmetric", "make entry (i, j) equal to entry (j, i)"
            )
        if not _semidefinite(cov):
            raise ProgramError(spelled, "covariance", "a covariance is positive semidefinite",
                               "make every correlation at most 1 in size")
        for i, name in enumerate(group):
            self.add(Input(name, VectorType(_dim(name, dim)), Joint(group, i, mu, cov)))
        return tuple(self[name] for name in group)

    def constant(self, name: str, dim: Dim, *, value: Exact = 1) -> build.Vector:
        """Declare a vector whose coordinates are all ``value``, an exact number."""
        return self[self.add(Input(name, VectorType(_dim(name, dim)), Constant(coefficient(value, "a constant"))))]

    def data(self, name: str, dim: Dim | None = None, *, values: Sequence | None = None,
             onehot: int | None = None) -> build.Value:
        """Declare data along a fixed axis (a number if ``dim`` is None): the same at every width.

        Args:
            values: its coordinates, rationals; None for generic data.
            onehot: the index of the only coordinate that is 1.
        """
        exact = None if values is None else tuple(_rational(name, x) for x in values)
        if exact is not None and onehot is not None:
            raise ProgramError(f"input {name}", str(onehot), "values and onehot exclude each other", "give one of them")
        if dim is None and (onehot is not None or (exact is not None and len(exact) != 1)):
            raise ProgramError(f"input {name}", str(values or onehot), "a scalar is one number", "give it an axis")
        kind = ScalarType() if dim is None else VectorType(_dim(name, dim))
        return self[self.add(Input(name, kind, Data(exact, onehot)))]

    def scalar(self, name: str, value) -> build.Scalar:
        """Declare a constant number, exact; ``scalar("t", Fraction(1, 3))``."""
        return self[self.add(Input(name, ScalarType(), Constant(coefficient(value, "a scalar"))))]

    def param(self, name: str, rows: Dim, cols: Dim, *, a=None, b=None, c=None, init: str = "normal", role: str = "",
              trainable: bool = True) -> build.Matrix:
        """Declare a trainable matrix ``W = n^-a w``, ``w ~ N(0, n^-2b)``, learning rate ``n^-c``.

        Args:
            a, b, c: rationals, or None where they are what is asked for (symbols ``a[W]``, ``b[W]``, ``c[W]``).
            init: "normal", or a constant start: "zero", "one".
            role: a word for tables.
            trainable: False for a frozen weight.

        Raises:
            ProgramError: if an exponent is not rational, or ``init`` is unknown.

        Example:
            >>> from tensorprog.program.program import Program
            >>> p = Program()
            >>> n = p.dim("n")
            >>> W = p.param("W", n, n, a=0)
            >>> str(p.line_of("W").law.variance)
            'n^(-2*b[W])'
        """
        given = [None if e is None else _rational(name, e) for e in (a, b, c)]
        if init not in ("normal", "zero", "one"):
            raise ProgramError(
                f"param {name}", init, "unknown initialization", "use init=normal, init=zero or init=one"
            )
        param = Param(*given, init=init, role=role, trainable=trainable)
        kind = MatrixType(_dim(name, rows), _dim(name, cols))
        return self[self.add(Input(name, kind, self.default_law(name, param), param))]

    def default_law(self, name: str, param: Param) -> Normal | Constant:
        """Return the law of a parameter's entries: N(0, n^(-2a - 2b)), unknown exponents as symbols, or a constant."""
        if param.init != "normal":
            return Constant(ZERO if param.init == "zero" else ONE)
        a, b = (
            Affine.symbol(f"{s}[{name}]") if e is None else Affine.of(e) for s, e in (("a", param.a), ("b", param.b))
        )
        exponent = -2 * (a + b)
        return Normal(ZERO, ONE if exponent.is_zero else Scale.power(self.scale_dim(name).name, exponent))

    def scale_dim(self, name: str = "param") -> Dim:
        """Return the dimension that is n itself: of growth 1, and of factor 1 if there is one."""
        widths = [d for d in self._dims.values() if d.growth == 1]
        if not widths:
            raise ProgramError(f"param {name}", "no width", "no dimension grows like n", "declare: dim n")
        return next((d for d in widths if d.factor == 1), widths[0])

    def exponent(self, name: str) -> Affine:
        """Declare an unknown exponent of a multiplier, so that ``n ** -alpha`` is one that derive solves for."""
        if name in self.unknowns or name in self._dims or name in self:
            raise ProgramError(f"exponent {name}", name, "this name is taken already", "use a new name")
        self.unknowns = (*self.unknowns, name)
        return Affine.symbol(name)

    # --------------------------------------------------------------------------------------- expressions

    def mean(self, x: build.Vector) -> build.Scalar:
        """Return ``(1/size) sum(x)`` over the axis of a vector expression."""
        return build.moment(x)

    def sum(self, x: build.Vector) -> build.Scalar:
        """Return ``sum(x)`` over the axis of a vector expression."""
        return build.moment(x, mean=False)

    def let(self, name: str, x) -> build.Value:
        """Write a line of its own named ``name`` for an expression, and return the variable.

        Example:
            >>> from tensorprog.program.program import Program, spell
            >>> p = Program()
            >>> n = p.dim("n")
            >>> W, x = p.matrix("W", n, n), p.vector("x", n)
            >>> y = p.let("y", (W + W.T) @ x / 2)
            >>> [spell(line) for line in p.lines[2:]]
            ['_1 = W @ x', '_2 = W.T @ x', 'y = 1/2*_1 + 1/2*_2']
        """
        if not isinstance(x, build.Value):
            if isinstance(x, build.Matrix):
                raise ProgramError(
                    f"{name} = {x}", str(x), "only vectors and scalars are lines", "apply the matrix to a vector"
                )
            return self.scalar(name, x)
        line = x.line if x.line is not None else build.polynomial_line(x)
        return self[self.add(replace(line, out=name))]

    def __getitem__(self, name: str) -> Any:
        """Return the handle of a variable; raises ProgramError if there is none of that name."""
        kind = self.type_of(name)
        if isinstance(kind, MatrixType):
            return build.Matrix(self, kind.rows, kind.cols, ((ONE, (), (build.Letter(name),)),))
        handle = build.Vector if isinstance(kind, VectorType) else build.Scalar
        return handle(self, kind, terms=((ONE, ((name, 1),)),))

    def _lazy(self, line: MatMul | Nonlin | Moment) -> build.Value:
        """Return the handle of a line that is checked now and written when its value is first needed."""
        kind = self._check(replace(line, out="_"))
        return (build.Vector if isinstance(kind, VectorType) else build.Scalar)(self, kind, line=line)

    def limit(self, name: Any = None, **options) -> Any:
        """Return the infinite-width limit of a variable (a handle or a name), of several, or of all outputs.

        The exact form, the value with its error, the method and the derivation: see ``tensorprog.limit``.

        Example:
            >>> from tensorprog.program.program import Program
            >>> p = Program()
            >>> n = p.dim("n")
            >>> W, x = p.matrix("W", n, n), p.vector("x", n)
            >>> p.limit(p.mean((W.T @ (W @ x)) * x)).exact
            1
        """
        # by name: limits read programs, never the other way round
        several = isinstance(name, list | tuple)
        asked = [getattr(x, "name", x) for x in name] if several else getattr(name, "name", name)
        return import_module("tensorprog.finite.limit").limit(self, asked, **options)

    def confirm(self, name: Any, **options) -> Any:
        """Compare the limit of a scalar (a handle or a name) with its values at finite width, over widths and seeds.

        Returns bias and spread by width, the slope of the error (-1/2), and a verdict: see ``tensorprog.converge``.
        """
        return import_module("tensorprog.finite.limit").confirm_limit(self, getattr(name, "name", name), **options)

    def probe(self, dim: Dim) -> build.Vector:
        """Declare a vector of independent N(0, 1) coordinates under a fresh name."""
        return self.vector(self.fresh("_"), dim)

    def _ones(self, dim: Dim) -> build.Vector:
        """Return the vector of ones along an axis; declares one if there is none."""
        ones = VectorType(dim), Constant(ONE)
        found = next((x.out for x in self._lines if isinstance(x, Input) and (x.type, x.law) == ones), None)
        return self[found or self.add(Input(self.fresh("_"), *ones))]

    def _write(self, line: MatMul | Nonlin | Moment) -> str:
        """Return the variable that holds a line's value; an equal line that is there already is reused."""
        for old in self._lines[self._indexed:]:
            if not isinstance(old, Input) or isinstance(old.type, ScalarType):
                self._known.setdefault(replace(old, out=""), old.out)
        self._indexed = len(self._lines)
        return self._known.get(line) or self.add(replace(line, out=self.fresh("_")))

    # for the type checker: Program provides these
    def add(self, line: Instruction) -> str: raise NotImplementedError
    def fresh(self, stem: str = "v") -> str: raise NotImplementedError
    def type_of(self, name: str): raise NotImplementedError
    def __contains__(self, name: str) -> bool: raise NotImplementedError
    def _check(self, line: Instruction): raise NotImplementedError


def _dim(name: str, dim) -> Dim:
    if not isinstance(dim, Dim):
        raise ProgramError(name, dim, "an axis is a dimension", 'use n = p.dim("n")')
    return dim


def _variance(name: str, x) -> Scale:
    variance = coefficient(x, "a variance")
    if sign(variance.number) < 0:
        raise ProgramError(
            name, str(variance), "a variance is not negative", "give the variance, not an exponent of it"
        )
    return variance


def _rational(name: str, x) -> Fraction:
    if isinstance(x, str):
        try:
            return Fraction(x)
        except (ValueError, ZeroDivisionError):
            raise ProgramError(name, x, "not a rational number", "write 1/2") from None
    number = coefficient(x, "an exponent or a datum")
    if number.powers or not isinstance(number.number, Fraction):
        raise ProgramError(name, str(number), "a rational number is needed here", "write Fraction(1, 2)")
    return number.number


def _semidefinite(matrix: Sequence[Sequence[Scale]]) -> bool:
    """Return whether a symmetric matrix of numbers is positive semidefinite; True if it has powers of dimensions."""
    if any(x.powers for row in matrix for x in row):
        return True
    rational = all(isinstance(x.number, Fraction) for row in matrix for x in row)
    a = [[x.number if rational else float(x.number) for x in row] for row in matrix]
    tiny = 0 if rational else ALMOST_ZERO
    for k in range(len(a)):  # elimination, exact for rationals: a zero pivot needs a zero row
        if a[k][k] < -tiny or (a[k][k] <= tiny and any(abs(x) > tiny ** 0.5 for x in a[k][k:])):
            return False
        for i in range(k + 1, len(a)):
            if a[k][k] > tiny:
                ratio = a[i][k] / a[k][k]
                a[i] = [x - ratio * y for x, y in zip(a[i], a[k], strict=True)]
    return True
