"""Fixed axes written out: the same program with vectors along widths, matrices between widths, and scalars only.

A vector along a fixed axis is that many scalars; a matrix with one fixed axis is that many vectors; an update is the
rank-one products it consists of; the mean of a matrix's entries is a moment. Each rewriting holds at every n, so
the new program has the law of the old one (its random numbers have other names).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.interp.rules import Rules
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    Joint,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Normal,
    Outer,
    ScalarType,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

scalarize = Rules("scalarize")

Entry = str | Fraction  # a variable of the new program, or a number
NOTHING = Scale(Fraction(0))


@dataclass(frozen=True, slots=True)
class Columns:
    """A matrix with one fixed axis as vectors along the other; ``by_rows``: the fixed axis is that of the rows."""

    vectors: tuple[Entry, ...]
    by_rows: bool


@dataclass(frozen=True, slots=True)
class Projected:
    """A random matrix with fixed columns that only ever multiplies data: jointly Gaussian vectors, by the data."""

    vectors: Mapping[tuple[Fraction, ...], str]


@dataclass(frozen=True, slots=True)
class Between:
    """A random matrix between two widths: ``mean * 1 1^T`` plus the matrix ``name`` of mean zero (None: absent)."""

    name: str | None
    mean: Scale


@dataclass(frozen=True, slots=True)
class Update:
    """A sum of ``coef * u v^T`` between two widths."""

    pieces: tuple[tuple[Scale, str, str], ...]


class Scalarized:
    r"""The rewritten program, and what became of each variable.

    Args:
        program: any program.
        data: the coordinates of generic data by name, exact rationals; what is not given is a NotCoveredError
            when it is used.

    Attributes:
        program: the new program, frozen.
        of: the variable of the new program that a variable became; a tuple of them for a vector along a fixed axis;
            a number where it is one. (Here the product with the data is a Gaussian vector, N(0, 5).)

    Example:
        >>> from tensorprog.program.text import parse
        >>> s = Scalarized(parse("dim n\ndim d = 2\nmatrix U : n x d ~ N(0, 1)\ninput xi : d = [1, 2]\nh = U @ xi"))
        >>> print(s.program)
        dim n
        dim d = 2
        vector n h
    """

    def __init__(self, program: Program, data: Mapping[str, Sequence[Fraction]] | None = None):
        self.source, self.data = program, data or {}
        self.program = Program(program.dims.values(), unknowns=program.unknowns)
        self.program.reserve(program.names)
        self.of: dict[str, Any] = {}
        for line in program.lines:
            self.of[line.out] = scalarize[line](self, line)
        self.program.freeze()

    # ------------------------------------------------------------------------------------------ helpers

    def number(self, name: str, x: Fraction) -> str:
        """Return a scalar of the new program that is the number x."""
        if name in self.program:
            name = self.program.fresh(name)
        return self.program.add(Input(name, ScalarType(), Constant(Scale(x))))

    def ones(self, dim: Dim) -> str:
        """Return the vector of ones along an axis."""
        name = f"one[{dim.name}]"
        if name not in self.program:
            self.program.add(Input(name, VectorType(dim), Constant(ONE)))
        return name

    def combine(self, out: str, terms: Sequence[tuple[Scale, Sequence[Entry]]], dim: Dim | None) -> Entry:
        """Write ``out = sum coef * product of entries``, along ``dim`` (None: a scalar); return what it is."""
        names: list[str] = []
        monomials: list[tuple[Scale, dict[str, int]]] = []
        for coef, factors in terms:
            powers: dict[str, int] = {}
            for f in factors:
                if isinstance(f, Fraction):
                    coef = coef * f
                else:
                    powers[f] = powers.get(f, 0) + 1
            if not coef.is_zero:
                monomials.append((coef, powers))
                names += [f for f in powers if f not in names]
        if not monomials and dim is None:
            return Fraction(0)
        if dim is None and all(not p for _, p in monomials) and all(not c.powers for c, _ in monomials):
            total = sum((c.number for c, _ in monomials), Fraction(0))
            if isinstance(total, Fraction):
                return total
        if dim is not None and not any(isinstance(self.program.type_of(f), VectorType) for f in names):
            names.append(self.ones(dim))
        if not names:  # a scalar with a power of n in front
            return self.program.add(Input(out, ScalarType(), Constant(monomials[0][0])))
        poly = Poly(len(names), tuple((c, tuple(p.get(f, 0) for f in names)) for c, p in monomials))
        return self.program.add(Nonlin(out, poly, tuple(names)))

    def dot(self, u: Entry, v: Entry, dim: Dim) -> Entry:
        """Return ``sum(u * v)`` along a width."""
        if u == 0 or v == 0:
            return Fraction(0)
        factors = [f for f in (u, v) if isinstance(f, str)] or [self.ones(dim)]
        total = self.program.add(Moment(self.program.fresh("_s"), tuple(factors), mean=False))
        coef = ONE
        for f in (u, v):
            coef = coef * f if isinstance(f, Fraction) else coef
        return total if coef == ONE else self.combine(self.program.fresh("_s"), [(coef, (total,))], None)

    def scalar_name(self, x: Entry) -> str:
        """Return a variable for an entry, numbers included."""
        return x if isinstance(x, str) else self.number(self.program.fresh("_c"), x)


def _fixed(t) -> Dim | None:
    return t.dim if isinstance(t, VectorType) and t.dim.is_fixed else None


def _count(dim: Dim) -> int:
    return int(dim.factor)


# ------------------------------------------------------------------------------------------------ the rules


@scalarize(Input)
def _input(self: Scalarized, line: Input):
    t, law = line.type, line.law
    if isinstance(t, MatrixType):
        return _matrix(self, line, t)
    if isinstance(t, ScalarType):
        if isinstance(law, Constant):
            return self.program.add(line) if law.value.powers else _exact(self, line.out, law.value)
        return _data(self, line, law, 1)[0]
    if not t.dim.is_fixed:
        return self.program.add(line)
    size = _count(t.dim)
    if isinstance(law, Data):
        return _data(self, line, law, size)
    if isinstance(law, Constant):
        return tuple(_exact(self, f"{line.out}[{i}]", law.value) for i in range(size))
    raise NotCoveredError(spell(line), str(t), "a random vector along a fixed axis stays random as n grows",
                          "give it values, or an axis that grows")


def _exact(self: Scalarized, name: str, value: Scale) -> Entry:
    if not value.powers and isinstance(value.number, Fraction):
        return value.number
    return self.program.add(Input(name, ScalarType(), Constant(value)))


def _data(self: Scalarized, line: Input, law, size: int) -> tuple[Fraction, ...]:
    if law.onehot is not None:
        return tuple(Fraction(int(i == law.onehot)) for i in range(size))
    values = law.values if law.values is not None else self.data.get(line.out)
    if values is None or len(values) != size:
        raise NotCoveredError(spell(line), values, "this data has no values, so the limit is no number",
                              f"give it {size}: input {line.out} : ... = [1, ...], or data={{{line.out!r}: [...]}}")
    return tuple(Fraction(x) for x in values)


def _matrix(self: Scalarized, line: Input, t: MatrixType):
    law: Any = line.law
    mean, variance = (law.value, NOTHING) if isinstance(law, Constant) else (law.mean, law.variance)
    if not t.rows.is_fixed and not t.cols.is_fixed:
        if variance.is_zero:
            return Between(None, mean)
        return Between(self.program.add(Input(line.out, t, Normal(NOTHING, variance))), mean)
    if t.rows.is_fixed and t.cols.is_fixed:
        if not variance.is_zero:
            raise NotCoveredError(spell(line), str(t), "a random matrix of fixed size stays random as n grows",
                                  "let an axis of it grow, or start it at zero or one")
        entry = _exact(self, line.out, mean)
        return Columns((entry,) * _count(t.cols), by_rows=False)
    by_rows = t.rows.is_fixed
    along, count = (t.cols, _count(t.rows)) if by_rows else (t.rows, _count(t.cols))
    if variance.is_zero and mean.is_zero:
        return Columns((Fraction(0),) * count, by_rows)
    data = None if by_rows or variance.is_zero else _only_data(self, line)
    if data:
        return _projected(self, along, mean, variance, data)
    return Columns(tuple(
        self.program.add(Input(f"{line.out}[{i}]", VectorType(along), Normal(mean, variance))) for i in range(count)
    ), by_rows)


def _only_data(self: Scalarized, line: Input) -> dict[tuple[Fraction, ...], str] | None:
    """Return the data that a matrix multiplies, with the name of the first product; None if it does anything else."""
    found: dict[tuple[Fraction, ...], str] = {}
    for use in self.source.lines:
        if not isinstance(use, MatMul) or use.matrix != line.out:
            continue
        x = self.source.line_of(use.vector)
        if use.transposed or not isinstance(x, Input) or not isinstance(x.law, Data):
            return None
        values = _data(self, x, x.law, _count(self.source.dim_of(x.out)))
        if any(values):
            found.setdefault(values, use.out)
    return found


def _projected(self: Scalarized, along: Dim, mean: Scale, variance: Scale, data) -> Projected:
    """Declare the products: rows of the matrix are independent, so are their coordinates."""
    names, points = tuple(data.values()), list(data)
    covariance = tuple(tuple(variance * sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0)) for y in points)
                       for x in points)
    means = tuple(mean * sum(x, Fraction(0)) for x in points)
    for i, name in enumerate(names):
        law = Joint(names, i, means, covariance) if len(names) > 1 else Normal(means[0], covariance[0][0])
        self.program.add(Input(name, VectorType(along), law))
    return Projected(dict(zip(points, names, strict=True)))


@scalarize(MatMul)
def _matmul(self: Scalarized, line: MatMul):
    rows, cols = self.source.axes_of(line.matrix)
    if line.transposed:
        rows, cols = cols, rows
    matrix, x = self.of[line.matrix], self.of[line.vector]
    if isinstance(matrix, Projected):
        return matrix.vectors.get(x) or self.combine(line.out, [], rows)
    if isinstance(matrix, Columns):
        return _columns(self, line, matrix, x, rows, cols)
    if isinstance(matrix, Update):
        pieces = []
        for coef, u, v in matrix.pieces:
            if line.transposed:
                u, v = v, u
            pieces.append((coef, (u, self.dot(v, x, cols))))
        return self.combine(line.out, pieces, rows)
    if matrix.mean.is_zero:
        return self.program.add(MatMul(line.out, matrix.name, x, line.transposed))
    constant = (matrix.mean, (self.dot(x, Fraction(1), cols),))
    if matrix.name is None:
        return self.combine(line.out, [constant], rows)
    centred = self.program.add(MatMul(self.program.fresh("_w"), matrix.name, x, line.transposed))
    return self.combine(line.out, [constant, (ONE, (centred,))], rows)


def _columns(self: Scalarized, line: MatMul, matrix: Columns, x, rows: Dim, cols: Dim):
    if rows.is_fixed and cols.is_fixed:  # a constant matrix: every entry is the same
        entry = matrix.vectors[0]
        return tuple(self.combine(f"{line.out}[{i}]", [(ONE, (entry, c)) for c in x], None)
                     for i in range(_count(rows)))
    if cols.is_fixed:  # sum_j x_j W[:, j]
        return self.combine(line.out, [(ONE, (w, c)) for w, c in zip(matrix.vectors, x, strict=True)
                                       if w != 0 and c != 0], rows)
    return tuple(self.dot(w, x, cols) for w in matrix.vectors)


@scalarize(Nonlin)
def _nonlin(self: Scalarized, line: Nonlin):
    dim = _fixed(self.source.type_of(line.out))
    if dim is not None:
        coordinates = [self.of[a] if isinstance(self.of[a], tuple) else (self.of[a],) * _count(dim) for a in line.args]
        return tuple(_apply(self, f"{line.out}[{i}]", line.fn, args, None)
                     for i, args in enumerate(zip(*coordinates, strict=True)))
    t = self.source.type_of(line.out)
    along = t.dim if isinstance(t, VectorType) else None
    return _apply(self, line.out, line.fn, [self.of[a] for a in line.args], along)


def _apply(self: Scalarized, out: str, fn, args: Sequence[Entry], dim: Dim | None) -> Entry:
    if isinstance(fn, Poly):
        return self.combine(out, [(c, [a for a, p in zip(args, powers, strict=True) for _ in range(p)])
                                  for c, powers in fn.terms], dim)
    return self.program.add(Nonlin(out, fn, tuple(self.scalar_name(a) for a in args)))


@scalarize(Moment)
def _moment(self: Scalarized, line: Moment):
    dim = self.source.dim_of(line.args[0])
    if dim.is_fixed:
        coef = Scale(Fraction(1, _count(dim))) if line.mean else ONE
        columns = zip(*(self.of[a] for a in line.args), strict=True)
        return self.combine(line.out, [(coef, product) for product in columns], None)
    names = tuple(self.of[a] for a in line.args)
    if any(not isinstance(a, str) for a in names):
        return Fraction(0)  # the only vectors along a width that are numbers are zero
    return self.program.add(Moment(line.out, names, line.mean))


@scalarize(Outer)
def _outer(self: Scalarized, line: Outer):
    rows, cols = self.source.axes_of(line.out)
    rule: Any = line.rule
    wide = not rows.is_fixed and not cols.is_fixed
    if wide and not rule.linear:
        return _sign_like(self, line)
    if wide:
        weights = rule.linear_weights(len(line.pairs) - 1)
        return Update(tuple((line.coef * line.gradient * w, self.of[u], self.of[v])
                            for w, pairs in zip(weights, line.pairs, strict=True) if w for u, v in pairs))
    by_rows = rows.is_fixed
    along = None if cols.is_fixed and rows.is_fixed else cols if by_rows else rows
    if along is None and _count(rows) * _count(cols) > 1:
        raise NotCoveredError(spell(line), line.out, "an update of a matrix of fixed size", "use a 1 x 1 matrix")
    count = _count(rows if by_rows else cols)
    return Columns(tuple(_update_column(self, line, i, by_rows, along) for i in range(count)), by_rows)


def _update_column(self: Scalarized, line: Outer, i: int, by_rows: bool, along: Dim | None) -> Entry:
    """Return one vector of an update with a fixed axis: all its gradients, then the rule coordinate by coordinate."""
    rule: Any = line.rule
    products = []
    for pairs in line.pairs:
        step = []
        for u, v in pairs:
            fixed, moving = (self.of[u], self.of[v]) if by_rows else (self.of[v], self.of[u])
            step.append((line.gradient, (fixed[i], moving[0] if isinstance(moving, tuple) else moving)))
        products.append(step)
    name = f"{line.out}[{i}]"
    if rule.linear:
        weights = rule.linear_weights(len(line.pairs) - 1)
        return self.combine(name, [(line.coef * coef * w, f) for w, step in zip(weights, products, strict=True) if w
                                   for coef, f in step], along)
    gradients = [self.combine(self.program.fresh("_g"), step, along) for step in products]
    if not (rule.name == "signsgd" or len(gradients) == 1) or not line.eps.is_zero:
        raise NotCoveredError(spell(line), rule.name, "the limit of this rule after its first step is not implemented",
                              "use a linear rule or signsgd, or one step with eps = 0")
    # with eps = 0 the first direction of every scale-free rule is the sign
    signs = self.program.add(Nonlin(self.program.fresh("_g"), nonlinearity("sign"), (self.scalar_name(gradients[-1]),)))
    return self.combine(name, [(line.coef, (signs,))], along)


def _sign_like(self: Scalarized, line: Outer) -> Update:
    """Return sign(u v^T) = sign(u) sign(v)^T, the first direction of every scale-free rule on one sample."""
    steps = [pairs for pairs in line.pairs if pairs]
    rule: Any = line.rule
    if len(line.pairs[-1]) != 1 or not line.eps.is_zero or not (rule.name == "signsgd" or len(steps) == 1):
        raise NotCoveredError(spell(line), rule.name, "an entrywise update of several samples, or of a later step, is "
                              "no sum of rank-one products", "use a linear rule, or signsgd on one sample")
    (pair,) = line.pairs[-1]
    signs = [self.program.add(Nonlin(self.program.fresh("_g"), nonlinearity("sign"), (self.of[x],))) for x in pair]
    sign = 1 if line.gradient.number > 0 else -1
    return Update(((line.coef * sign, signs[0], signs[1]),))
