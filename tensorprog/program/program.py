"""A tensor program: an append-only, typed, topologically ordered list of lines, verified as each is added."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import cast

from tensorprog.errors import ProgramError
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import (
    INSTRUCTIONS,
    Constant,
    Data,
    Input,
    Instruction,
    Joint,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Outer,
    Parameter,
    ScalarType,
    Type,
    VectorType,
)
from tensorprog.program.surface import Surface

SCALAR = ScalarType()


class Program(Surface):
    """A program of typed lines in the order in which they run.

    Lines are frozen values; a line is checked against those before it when it is added, so a program is at all
    times well-typed and topologically ordered. ``freeze()`` forbids further lines; every transformation returns a
    frozen program. Two programs are equal if their dimensions, lines, outputs and loss are.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, x = p.matrix("W", n, n), p.vector("x", n)
        >>> s = p.mean((W.T @ (W @ x)) * x)
        >>> str(p.type_of(s.name)), len(p.lines)
        ('scalar', 5)
    """

    def __init__(self, dims: Iterable[Dim] = (), lines: Iterable[Instruction] = (), *, outputs: Iterable[str] = (),
                 loss: str | None = None, unknowns: Iterable[str] = ()):
        self._dims: dict[str, Dim] = {}
        self._lines: list[Instruction] = []
        self._types: dict[str, Type] = {}
        self._where: dict[str, int] = {}
        self._frozen = False
        self._fresh = 0
        self._reserved: set[str] = set()
        self._init_surface()
        self.outputs: tuple[str, ...] = ()
        self.loss = loss
        self.unknowns: tuple[str, ...] = tuple(unknowns)
        for dim in dims:
            self.add_dim(dim)
        for line in lines:
            self.add(line)
        for name in outputs:
            self.output(name)

    # ------------------------------------------------------------------------------------------- reading

    @property
    def dims(self) -> dict[str, Dim]:
        """The dimensions by name, in the order in which they were declared."""
        return dict(self._dims)

    @property
    def lines(self) -> tuple[Instruction, ...]:
        """The lines in the order in which they run."""
        return tuple(self._lines)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables in the order in which they are computed."""
        return tuple(self._types)

    @property
    def params(self) -> tuple[Parameter, ...]:
        """The Input lines of trainable matrices."""
        found = tuple(x for x in self._lines if isinstance(x, Input) and x.param is not None)
        return cast("tuple[Parameter, ...]", found)  # _check_input: what has a param is a matrix

    @property
    def growths(self) -> dict[str, Fraction]:
        """The growth of every dimension."""
        return {d.name: d.growth for d in self._dims.values()}

    def sizes(self, n: int) -> dict[str, int]:
        """Return the size of every dimension at scale n."""
        return {d.name: d.at(n) for d in self._dims.values()}

    def type_of(self, name: str) -> Type:
        """Return a variable's type; raises ProgramError if there is no such variable."""
        if name not in self._types:
            raise ProgramError(name, name, "no such variable", "name one of: " + ", ".join(list(self._types)[-8:]))
        return self._types[name]

    def dim_of(self, name: str) -> Dim:
        """Return the axis of a vector; raises ProgramError if the variable is not one."""
        t = self.type_of(name)
        if not isinstance(t, VectorType):
            raise ProgramError(name, str(t), f"{name} is not a vector", "use a vector here")
        return t.dim

    def axes_of(self, name: str) -> tuple[Dim, Dim]:
        """Return the rows and columns of a matrix; raises ProgramError if the variable is not one."""
        t = self.type_of(name)
        if not isinstance(t, MatrixType):
            raise ProgramError(name, str(t), f"{name} is not a matrix", "use a matrix here")
        return t.rows, t.cols

    def line_of(self, name: str) -> Instruction:
        """Return the line that computes a variable."""
        self.type_of(name)
        return self._lines[self._where[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def _key(self):
        return (tuple(self._dims.values()), self.lines, self.outputs, self.loss, self.unknowns)

    def __eq__(self, other) -> bool:
        return isinstance(other, Program) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    # ------------------------------------------------------------------------------------------- writing

    def freeze(self) -> Program:
        """Forbid further lines; returns the program itself."""
        self._frozen = True
        return self

    @property
    def is_frozen(self) -> bool:
        """Whether lines can no longer be added."""
        return self._frozen

    def copy(self) -> Program:
        """Return an equal program that is not frozen."""
        return Program(self._dims.values(), self._lines, outputs=self.outputs, loss=self.loss, unknowns=self.unknowns)

    def add_dim(self, dim: Dim) -> Dim:
        """Declare a dimension; the same one twice is fine, another of its name is a ProgramError."""
        old = self._dims.get(dim.name)
        if old is not None and old != dim:
            raise ProgramError(dim.declaration(), dim.name, "this dimension is declared already, differently",
                               "use another name")
        self._dims[dim.name] = dim
        return dim

    def add(self, line: Instruction) -> str:
        """Append a verified line and return the name of its result."""
        if self._frozen:
            raise ProgramError(spell(line), line.out, "the program is frozen", "add it to program.copy()")
        if line.out in self._types:
            raise ProgramError(spell(line), line.out, "this name is taken already", "use a new name")
        self._types[line.out] = self._check(line)
        self._where[line.out] = len(self._lines)
        self._lines.append(line)
        return line.out

    def fresh(self, stem: str = "v") -> str:
        """Return a name that is not taken."""
        while True:
            self._fresh += 1
            name = f"{stem}{self._fresh}"
            if name not in self._types and name not in self._reserved and name not in self._dims:
                return name

    def reserve(self, names: Iterable[str]) -> None:
        """Keep ``fresh`` from giving out these names."""
        self._reserved.update(names)

    def output(self, *names) -> None:
        """Mark variables as outputs."""
        for name in names:
            name = getattr(name, "name", name)
            self.type_of(name)
            if name not in self.outputs:
                self.outputs = (*self.outputs, name)

    def verify(self) -> Program:
        """Check every line again and return the program; used after every transformation."""
        Program(self._dims.values(), self._lines, outputs=self.outputs)
        return self

    # ------------------------------------------------------------------------------------------ checking

    def _arg(self, line: Instruction, name: str) -> Type:
        if name not in self._types:
            raise ProgramError(spell(line), name, f"{name} is not defined above this line", f"define {name} first")
        return self._types[name]

    def _vector(self, line: Instruction, name: str) -> Dim:
        t = self._arg(line, name)
        if not isinstance(t, VectorType):
            raise ProgramError(spell(line), f"{name}: {t}", f"{name} is not a vector", "use a vector here")
        return t.dim

    def _matrix(self, line: Instruction, name: str) -> MatrixType:
        t = self._arg(line, name)
        if not isinstance(t, MatrixType):
            raise ProgramError(spell(line), f"{name}: {t}", f"{name} is not a matrix", "multiply by a matrix here")
        return t

    def _check(self, line: Instruction) -> Type:
        if not isinstance(line, INSTRUCTIONS):
            raise ProgramError(repr(line), type(line).__name__, "not an instruction",
                               "use Input, MatMul, Nonlin, Moment or Outer")
        return _CHECKS[type(line)](self, line)

    def _check_input(self, line: Input) -> Type:
        t = line.type
        dims = (t.dim,) if isinstance(t, VectorType) else (t.rows, t.cols) if isinstance(t, MatrixType) else ()
        for dim in dims:
            if self._dims.get(dim.name) != dim:
                raise ProgramError(spell(line), dim.name, "this dimension is not declared", f"declare: dim {dim.name}")
        law = line.law
        if isinstance(law, Data) and isinstance(t, VectorType):
            if not t.dim.is_fixed:
                raise ProgramError(
                    spell(line), t.dim.name, "data has a fixed size", "use a fixed dim, or a law N(mean, variance)"
                )
            if law.values is not None and len(law.values) != t.dim.factor:
                raise ProgramError(
                    spell(line), len(law.values), f"the axis has {t.dim.factor} coordinates", "give one value each"
                )
            if law.onehot is not None and not 0 <= law.onehot < t.dim.factor:
                raise ProgramError(spell(line), law.onehot, f"no such coordinate of {t.dim.factor}", "count from 0")
        if isinstance(law, Joint) and not isinstance(t, VectorType):
            raise ProgramError(spell(line), str(t), "only vectors are jointly Gaussian", "give a matrix its own law")
        if isinstance(t, ScalarType) and not isinstance(law, Constant | Data):
            raise ProgramError(spell(line), law, "a scalar input is a constant", "give it a number")
        if isinstance(t, MatrixType) and isinstance(law, Joint | Data):
            raise ProgramError(spell(line), law, "a matrix has iid entries", "use N(mean, variance) or a constant")
        if line.param is not None and not isinstance(t, MatrixType):
            raise ProgramError(spell(line), str(t), "a trainable parameter is a matrix", "use n x 1 for a vector")
        return t

    def _check_matmul(self, line: MatMul) -> Type:
        m, d = self._matrix(line, line.matrix), self._vector(line, line.vector)
        rows, cols = (m.cols, m.rows) if line.transposed else (m.rows, m.cols)
        if d != cols:
            fix = f"use {line.matrix}{'' if line.transposed else '.T'} @ {line.vector}" if d == rows else \
                f"use a vector along {cols.name}"
            raise ProgramError(spell(line), f"{line.vector}: vector {d.name}",
                               f"{line.matrix}{'.T' if line.transposed else ''} takes vectors along {cols.name}", fix)
        return VectorType(rows)

    def _check_nonlin(self, line: Nonlin) -> Type:
        if line.fn.arity != len(line.args):
            raise ProgramError(spell(line), len(line.args), f"{line.fn.name} takes {line.fn.arity} arguments",
                               "give as many")
        dims = []
        for a in line.args:
            t = self._arg(line, a)
            if isinstance(t, MatrixType):
                raise ProgramError(spell(line), f"{a}: {t}", "a nonlinearity acts on vectors and scalars",
                                   f"apply {a} to a vector with @ first")
            if isinstance(t, VectorType):
                dims.append((a, t.dim))
        for a, d in dims:
            if d != dims[0][1]:
                raise ProgramError(spell(line), f"{a}: vector {d.name}",
                                   f"{dims[0][0]} runs along {dims[0][1].name}, {a} along {d.name}",
                                   "coordinatewise functions need one axis")
        return VectorType(dims[0][1]) if dims else SCALAR

    def _check_moment(self, line: Moment) -> Type:
        if not line.args:
            raise ProgramError(spell(line), (), "a moment needs a vector", "give at least one")
        first = self._vector(line, line.args[0])
        for a in line.args[1:]:
            if self._vector(line, a) != first:
                raise ProgramError(spell(line), f"{a}: {self._types[a]}", f"{line.args[0]} runs along {first.name}",
                                   "a moment needs one axis")
        return SCALAR

    def _check_outer(self, line: Outer) -> Type:
        pairs = [pair for step in line.pairs for pair in step]
        if not pairs:
            raise ProgramError(spell(line), (), "an outer product needs a pair of vectors", "give at least one")
        rows, cols = self._vector(line, pairs[0][0]), self._vector(line, pairs[0][1])
        for u, v in pairs:
            if self._vector(line, u) != rows or self._vector(line, v) != cols:
                raise ProgramError(spell(line), f"({u}, {v})", f"expected vectors along {rows.name} and {cols.name}",
                                   "all pairs share their axes")
        return MatrixType(rows, cols)

    # ------------------------------------------------------------------------- operators (program/build.py)

    def dim(self, name: str, size: int | None = None, *, growth: int | Fraction | str = 1,
            factor: int | Fraction | str = 1) -> Dim:
        """Declare a dimension: a width by default, a fixed axis if ``size`` is given.

        Args:
            size: the number of coordinates of a fixed axis.
            growth: the power of n, int, Fraction or "1/2".
            factor: the ratio to n^growth, int, Fraction or "3/2".
        """
        if isinstance(growth, float) or isinstance(factor, float):
            raise ProgramError(
                f"dim {name}",
                growth if isinstance(growth, float) else factor,
                "exponents and ratios are exact",
                "write Fraction(1, 2) or '1/2'",
            )
        return self.add_dim(
            Dim.fixed(name, size) if size is not None else Dim(name, Fraction(growth), Fraction(factor))
        )

    def __str__(self) -> str:
        return "\n".join([*(d.declaration() for d in self._dims.values()), *(spell(x) for x in self._lines)])

    def _repr_html_(self) -> str:
        from importlib import import_module  # by name: readings import programs, never the other way round

        return import_module("tensorprog.interp.show").to_html(self)

    def __repr__(self) -> str:
        return f"<Program: {len(self._lines)} lines, outputs {', '.join(self.outputs) or 'none'}>"


def spell(line: Instruction) -> str:
    """Return a line as a person would write it (for messages and listings)."""
    if isinstance(line, Input):
        return f"{line.type} {line.out}" if not isinstance(line.type, MatrixType) else \
            f"{'param' if line.param else 'matrix'} {line.out} : {line.type.rows.name} x {line.type.cols.name}"
    if isinstance(line, MatMul):
        return f"{line.out} = {line.matrix}{'.T' if line.transposed else ''} @ {line.vector}"
    if isinstance(line, Nonlin):
        args = line.args if line.fn.arity == len(line.args) else ("?",) * line.fn.arity
        return f"{line.out} = {line.fn.spelled(*args)}"
    if isinstance(line, Moment):
        return f"{line.out} = {'mean' if line.mean else 'sum'}({' * '.join(line.args)})"
    if isinstance(line, Outer):
        pairs = [f"{u} {v}^T" for step in line.pairs for u, v in step]
        shown = " + ".join(pairs[:3]) + (" + ..." if len(pairs) > 3 else "")
        return f"{line.out} = {line.coef} * {getattr(line.rule, 'name', line.rule)}({shown})"
    return repr(line)


_CHECKS = {
    Input: Program._check_input,
    MatMul: Program._check_matmul,
    Nonlin: Program._check_nonlin,
    Moment: Program._check_moment,
    Outer: Program._check_outer,
}
