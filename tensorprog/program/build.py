"""The Python surface: handles with operators that write the lines of a program.

``W @ x``, ``u * v``, ``relu(h)`` are frozen handles. A line is written when a handle's value is first needed under a
name, equal lines are written once (every instruction is a pure function of its arguments), and a polynomial in
variables, however many operators it took, is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tensorprog.atoms.function import Function
from tensorprog.errors import ProgramError, TensorProgError
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.program import functions
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import (
    Constant,
    Input,
    Instruction,
    MatMul,
    Moment,
    Nonlin,
    ScalarType,
    Type,
    VectorType,
)
from tensorprog.program.monomials import MAX_POWER, Monomial, Term, collected, join
from tensorprog.program.numbers import coefficient
from tensorprog.program.poly import Poly

#: Products of sums are multiplied out up to this many terms.
MAX_TERMS = 32


class Operators:
    """Abstract: the arithmetic that values and matrices share, in terms of ``_plus`` and ``_times``."""

    __slots__ = ()
    __array_ufunc__ = None  # numpy numbers on the left must ask us, and be refused

    program: Any

    def _plus(self, other):
        raise NotImplementedError

    def _times(self, other):
        raise NotImplementedError

    def _lift(self, x) -> Any:
        """Return an operand as a handle of the same program."""
        if isinstance(x, Operators):
            if x.program is not self.program:
                raise ProgramError(
                    f"{self} and {x}", str(x), "these belong to two programs", "build both in one Program"
                )
            return x
        return Scalar(self.program, ScalarType(), terms=((coefficient(x), ()),))

    def __add__(self, other):
        return self._plus(self._lift(other))

    def __radd__(self, other):
        return self._lift(other)._plus(self)

    def __sub__(self, other):
        return self._plus(-self._lift(other))

    def __rsub__(self, other):
        return self._lift(other)._plus(-self)

    def __neg__(self):
        return self._times(self._lift(-1))

    def __mul__(self, other):
        return self._times(self._lift(other))

    def __rmul__(self, other):
        return self._lift(other)._times(self)

    def __truediv__(self, other):
        return self._times(self._lift(other) ** -1)

    def __rtruediv__(self, other):
        return self._lift(other)._times(self**-1)

    def __pow__(self, k):
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Value(Operators):
    """A vector or a scalar: a line that is perhaps not yet written, or a polynomial in variables.

    Args:
        program: the program that it belongs to.
        type: its type.
        line: the instruction that computes it (its ``out`` left empty), or None if it is a polynomial.
        terms: the polynomial's monomials, a coefficient and powers of variables.
        anchor: a vector variable that says which axis a polynomial without vectors runs along.
    """

    program: Any
    type: Type
    line: Instruction | None = None
    terms: tuple[Term, ...] = ()
    anchor: str | None = None

    @property
    def name(self) -> str:
        """The variable that holds it; writes its line if there is none yet."""
        line = self._line()
        return line if isinstance(line, str) else self.program._write(line)

    def named(self, name: str) -> Value:
        """Write its line under ``name`` and return the variable."""
        return self.program.let(name, self)

    def _line(self) -> str | Instruction:
        """Return the variable that it is already, or else the line to write."""
        if self.line is not None:
            return self.line
        if len(self.terms) == 1 and self.terms[0][0] == ONE:
            powers = self.terms[0][1]
            if len(powers) == 1 and powers[0][1] == 1 and self.program.type_of(powers[0][0]) == self.type:
                return powers[0][0]
        return polynomial_line(self)

    def _polynomial(self) -> tuple[Term, ...]:
        return ((ONE, ((self.name, 1),)),) if self.line is not None else self.terms

    def _variable(self) -> Value:
        """Return the same value as a single variable."""
        return self.program[self.name]

    def _plus(self, other):
        return total([self, as_vector(other)])

    def _times(self, other):
        if isinstance(other, Matrix):
            return other._times(self)
        a, b = self, other
        if len(a._polynomial()) * len(b._polynomial()) > MAX_TERMS:
            a, b = (v if len(v._polynomial()) == 1 else v._variable() for v in (a, b))
        return _polynomial([a, b], [(c * d, join(p, q)) for c, p in a._polynomial() for d, q in b._polynomial()])

    def __pow__(self, k):
        exponent = coefficient(k, "an exponent")
        if exponent.powers or not isinstance(exponent.number, Fraction):
            raise ProgramError(f"({self})^{exponent}", str(exponent), "a power of a variable is a rational number",
                               "write Fraction(1, 2), or use exp")
        power = exponent.number
        if abs(power) > MAX_POWER:
            raise ProgramError(f"({self})^{power}", str(power), f"powers go up to {MAX_POWER}", "use a smaller power")
        terms = self.terms if self.line is None else None
        if terms is not None and len(terms) == 1 and not terms[0][1] and self.anchor is None:
            if terms[0][0].is_zero and power < 0:
                raise ProgramError(f"0^{power}", "0", "division by zero", "divide by a number that is not 0")
            return Scalar(self.program, self.type, terms=((terms[0][0] ** power, ()),))
        if power.denominator != 1 or power < 0:
            return apply(functions.power(power), self)
        if power == 0:
            return _polynomial([self], [(ONE, ())])
        result = self
        for _ in range(int(power) - 1):
            result = result._times(self)
        return result

    def __matmul__(self, other):
        raise ProgramError(f"{self} @ {other}", str(self), "the left side of @ is a matrix",
                           f"write mean({self} * {other}) for an inner product, or parentheses: u * (W @ v)")

    __rmatmul__ = __matmul__

    def __str__(self) -> str:
        line = self._line()
        if isinstance(line, str):
            return line
        if isinstance(line, Input):
            return " ".join(str(coef) for coef, _ in self.terms) or "0"
        from tensorprog.program.program import spell

        return spell(replace(line, out="_")).removeprefix("_ = ")

    def __repr__(self) -> str:
        return f"<{self.type}: {self}>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Vector(Value):
    """A vector of a program."""

    @property
    def dim(self) -> Dim:
        """The axis that it runs along."""
        return axis_of(self.type)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Scalar(Value):
    """A number of a program."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A factor of a product of matrices: a matrix, its transpose, or the diagonal matrix of a vector."""

    name: str
    transposed: bool = False
    diagonal: bool = False


Word = tuple[Letter, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Matrix(Operators):
    """A sum of multiples of products of matrices, transposes and diagonals; only what it does to a vector is a line.

    Args:
        program: the program that it belongs to.
        rows, cols: its shape.
        parts: a coefficient, powers of scalars, and a word of letters, for each summand.
    """

    program: Any
    rows: Dim
    cols: Dim
    parts: tuple[tuple[Scale, Monomial, Word], ...]

    @property
    def name(self) -> str:
        """The variable that it is; a ProgramError if it is a sum, a product or a transpose."""
        if len(self.parts) == 1:
            coef, powers, word = self.parts[0]
            if coef == ONE and not powers and len(word) == 1 and word[0] == Letter(word[0].name):
                return word[0].name
        raise ProgramError(str(self), str(self), "this matrix is not a variable", "apply it to a vector with @")

    @property
    def T(self) -> Matrix:
        """The transpose."""
        flip = {True: False, False: True}
        parts = tuple((c, s, tuple(replace(x, transposed=False if x.diagonal else flip[x.transposed])
                                   for x in reversed(word))) for c, s, word in self.parts)
        return Matrix(self.program, self.cols, self.rows, parts)

    def __matmul__(self, other):
        other = self._lift(other)
        if isinstance(other, Matrix):
            if other.rows != self.cols:
                raise ProgramError(f"{self} @ {other}", f"{self.shape} @ {other.shape}", "the inner axes differ",
                                   "transpose one of the two")
            return Matrix(self.program, self.rows, other.cols, tuple(
                (c * d, join(s, t), v + w) for c, s, v in self.parts for d, t, w in other.parts))
        if not isinstance(other, Vector):
            raise ProgramError(
                f"{self} @ {other}", str(other), "the right side of @ is a vector", "multiply by a scalar with *"
            )
        if other.dim != self.cols:
            turned = str(self.T) if len(self.parts) == 1 else f"({self}).T"
            fix = f"use {turned} @ {other}" if other.dim == self.rows else f"use a vector along {self.cols.name}"
            raise ProgramError(f"{self} @ {other}", str(other.type),
                               f"{self} takes vectors along {self.cols.name}", fix)
        total = self._part(0, other)
        for i in range(1, len(self.parts)):
            total = total._plus(self._part(i, other))
        return total

    def _part(self, i: int, vector: Value) -> Value:
        coef, scalars, word = self.parts[i]
        for letter in reversed(word):
            vector = self._letter(letter, vector)
        if coef == ONE and not scalars:
            return vector
        return vector._times(Scalar(self.program, ScalarType(), terms=((coef, scalars),)))

    def _letter(self, letter: Letter, vector: Value) -> Value:
        if letter.diagonal:
            return self.program[letter.name]._times(vector)
        return self.program._lazy(MatMul("", letter.name, vector.name, letter.transposed))

    @property
    def shape(self) -> str:
        """Its shape, as declarations write it."""
        return f"{self.rows.name} x {self.cols.name}"

    @property
    def is_column(self) -> bool:
        """Whether it has one column, so that it stands for a vector."""
        return self.cols.is_fixed and self.cols.factor == 1

    def _plus(self, other):
        if not isinstance(other, Matrix):
            return as_vector(self)._plus(other)
        if (self.rows, self.cols) != (other.rows, other.cols):
            raise ProgramError(f"{self} + {other}", f"{self.shape} + {other.shape}", "the shapes differ",
                               "add matrices of one shape")
        return Matrix(self.program, self.rows, self.cols, self.parts + other.parts)

    def _times(self, other):
        if not isinstance(other, Scalar):
            if self.is_column:
                return as_vector(self)._times(as_vector(other))
            raise ProgramError(
                f"{other} * {self}",
                str(self),
                f"* is coordinatewise, and {self} is a matrix",
                f"write {self} @ {other}, or apply {self} to a vector in parentheses: {other} * ({self} @ v)",
            )
        return Matrix(self.program, self.rows, self.cols, tuple(
            (c * d, join(s, q), w) for c, s, w in self.parts for d, q in other._polynomial()))

    def __pow__(self, k):
        raise ProgramError(f"({self})^{k}", str(k), "no powers of matrices", "write W @ W")

    def __str__(self) -> str:
        def spelled(coef, scalars, word):
            letters = [f"diag({x.name})" if x.diagonal else x.name + ".T" * x.transposed for x in word]
            front = [str(coef)] * (coef != ONE) + [v if k == 1 else f"{v}^{k}" for v, k in scalars]
            return "*".join([*front, " @ ".join(letters)])

        return " + ".join(spelled(*part) for part in self.parts)

    def __repr__(self) -> str:
        return f"<matrix {self.shape}: {self}>"


def as_vector(x: Value | Matrix) -> Value:
    """Return a value; a matrix of one column as the vector that it is, ``b @ one``."""
    if not isinstance(x, Matrix):
        return x
    if not x.is_column:
        raise ProgramError(str(x), str(x), f"{x} is a matrix, not a vector", f"apply it to a vector with @: {x} @ v")
    return x @ x.program._ones(x.cols)


def axis_of(kind: Type) -> Dim:
    """Return the axis of a vector's type."""
    if isinstance(kind, VectorType):
        return kind.dim
    raise ProgramError(str(kind), str(kind), "only vectors run along an axis", "use a vector here")


def common_axis(x: Value, y: Value) -> Type:
    """Return the type of a coordinatewise combination of two values; raises if they run along two axes."""
    if isinstance(x.type, ScalarType) or isinstance(y.type, ScalarType):
        return y.type if isinstance(x.type, ScalarType) else x.type
    if x.type != y.type:
        raise ProgramError(f"{x} with {y}", f"{x.type} and {y.type}",
                           f"one runs along {axis_of(x.type).name}, the other along {axis_of(y.type).name}",
                           "coordinatewise operations need one axis; use a matrix to change it")
    return x.type


def total(values: Sequence[Value]) -> Value:
    """Return the sum of values, as one polynomial."""
    return _polynomial(values, [term for v in values for term in v._polynomial()])


def _polynomial(values: Sequence[Value], terms: Iterable[Term]) -> Value:
    """Return the polynomial ``terms`` made of ``values``, along their common axis."""
    lead = values[0]
    for v in values[1:]:
        lead = v if common_axis(lead, v) != lead.type else lead
    program, terms = lead.program, collected(terms)
    if isinstance(lead.type, ScalarType):
        return Scalar(program, lead.type, terms=terms)
    if any(isinstance(program.type_of(v), VectorType) for _, powers in terms for v, _ in powers):
        return Vector(program, lead.type, terms=terms)
    anchor = lead.anchor or next(v for _, powers in lead._polynomial() for v, _ in powers
                                 if program.type_of(v) == lead.type)
    return Vector(program, lead.type, terms=terms, anchor=anchor)


def polynomial_line(value: Value) -> Nonlin | Input:
    """Return the one line that a polynomial is; arguments in the order of their first appearance."""
    if isinstance(value.type, ScalarType) and len(value.terms) <= 1 and not any(powers for _, powers in value.terms):
        return Input("", value.type, Constant(value.terms[0][0] if value.terms else Scale(Fraction(0))))
    names = list(dict.fromkeys(v for _, powers in value.terms for v, _ in powers))
    if value.anchor is not None:
        names.append(value.anchor)
    terms = tuple((coef, tuple(dict(powers).get(v, 0) for v in names)) for coef, powers in value.terms)
    return Nonlin("", Poly(len(names), terms), tuple(names))


def moment(value: Value | Matrix | Trace, *, mean: bool = True) -> Scalar:
    """Return ``mean(value)`` over its axis, or the sum; a monomial's scalars and coefficient go in front."""
    verb = "mean" if mean else "sum"
    if isinstance(value, Trace):
        g = value.matrix.program.probe(value.matrix.rows)
        return moment(g * (value.matrix @ g), mean=mean)
    value = as_vector(value)
    if not isinstance(value, Vector):
        raise ProgramError(f"{verb}({value})", str(value), f"{verb} takes a vector", f"leave {verb} out")
    program, scalar = value.program, ScalarType()
    terms = value._polynomial()
    if len(terms) != 1:
        terms = ((ONE, ((value.name, 1),)),)
    coef, powers = terms[0]
    vectors = tuple(v for v, k in powers if isinstance(program.type_of(v), VectorType) for _ in range(k))
    scalars = tuple((v, k) for v, k in powers if isinstance(program.type_of(v), ScalarType))
    if not vectors:
        size = ONE if mean else Scale.power(value.dim.name, 1)
        return Scalar(program, scalar, terms=((coef * size, scalars),))
    line = program._lazy(Moment("", vectors, mean))
    return line if coef == ONE and not scalars else line._times(Scalar(program, scalar, terms=((coef, scalars),)))


def diag(vector: Value) -> Matrix:
    """Return the diagonal matrix of a vector: ``diag(y) @ x`` is ``y * x``."""
    if not isinstance(vector, Vector):
        raise ProgramError(f"diag({vector})", str(vector), "diag takes a vector", "multiply by a scalar with *")
    dim = vector.dim
    return Matrix(vector.program, dim, dim, ((ONE, (), (Letter(vector.name, diagonal=True),)),))


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a square matrix, of which only the mean (divided by the size) is taken."""

    matrix: Matrix


def trace(matrix: Matrix) -> Trace:
    """Return the trace of a square matrix, for ``mean(trace(...))``: by a random vector g, ``mean(g * (matrix @ g))``.

    Raises:
        ProgramError: if it is not a square matrix.
    """
    if not isinstance(matrix, Matrix) or matrix.rows != matrix.cols:
        raise ProgramError(f"trace({matrix})", getattr(matrix, "shape", str(matrix)), "trace takes a square matrix",
                           "multiply by a transpose: W.T @ W")
    return Trace(matrix)


def apply(fn: Function | str, *args) -> Value:
    """Return ``fn(args)`` coordinate by coordinate; a vector if any argument is one.

    Args:
        fn: a Function, or the name of one, whose parameters follow its argument: ``apply("hermite", x, 3)``.
        args: vectors along one axis, scalars or exact numbers; at least one belongs to a program.

    Raises:
        ProgramError: if the arguments' number, types or axes do not fit.

    Example:
        >>> from tensorprog.program.program import Program
        >>> p = Program()
        >>> x = p.vector("x", p.dim("n"))
        >>> apply(Poly.product(2), x, x * 2).named("y"), p.lines[-1].args
        (<vector n: y>, ('x', '_1'))
    """
    if isinstance(fn, str):
        args, params = functions.split(fn, args)
        fn = functions.function_named(fn, len(args), *params)
    owner = next((a for a in args if isinstance(a, Operators)), None)
    if owner is None:
        raise ProgramError(f"{fn.name}({', '.join(map(str, args))})", fn.name, "no argument is a variable of a program",
                           "give a vector or scalar of a program")
    values: list[Value] = [as_vector(owner._lift(a)) for a in args]
    return owner.program._lazy(Nonlin("", fn, tuple(v.name for v in values)))


def function(name: str) -> Callable[..., Value]:
    """Return ``apply`` of a registered nonlinearity as a plain function: ``relu = function("relu")``."""
    if not functions.is_function(name):
        functions.nonlinearity(name)  # raises, naming the nearest

    def applied(*args) -> Value:
        return apply(name, *args)

    applied.__name__ = applied.__qualname__ = name
    applied.__doc__ = f"Return ``{name}`` of vectors, scalars or numbers, coordinate by coordinate."
    return applied


def __getattr__(name: str):
    """Return the function of a registered nonlinearity, so that ``from tensorprog.program.build import relu`` works."""
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return function(name)
    except (TensorProgError, ImportError) as error:
        raise AttributeError(f"no function or nonlinearity {name!r}") from error


def exact_sequence(xs: Sequence, what: str) -> tuple[Scale, ...]:
    """Return exact numbers as Scales."""
    return tuple(coefficient(x, what) for x in xs)
