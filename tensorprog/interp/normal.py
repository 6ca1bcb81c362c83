"""Normal form: a program without powers of n, whose vectors have coordinates of order 1.

Every variable v of a scalarized program is ``n^e`` times a normal one, ``e`` from the exponent calculus. A line keeps
its terms of leading order: in a polynomial the largest monomials, in a function of a vanishing argument the first
Taylor term, in an increment ``phi(x + dx) - phi(x)`` with a vanishing dx the differential ``phi'(x) dx``. A sum whose
summands have mean zero is n^(1/2) smaller than one whose summands do not: it stays a sum, over n^(1/2), and is
Gaussian in the limit. Matrices have entries N(0, sigma^2 / columns).

Source: yang2020matrix, yang2021feature (normal form and Z-variables); the exponents are those of interp/scaling.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from tensorprog.atoms.diff import Diff
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.exponents.affine import Values
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.interp.rules import Rules
from tensorprog.interp.scalarize import Scalarized
from tensorprog.interp.scaling import Scaling
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import (
    Constant,
    Input,
    Joint,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Normal,
    Outer,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

normal = Rules("normal")
HALF = Fraction(1, 2)
NOTHING = Scale(Fraction(0))


class NormalForm:
    r"""The normal form of a program.

    Args:
        program: any program.
        values: a rational for every unknown exponent.
        data: coordinates of generic data, by name.
        ratios: numbers (or sympy symbols) to stand for the factors of dimensions, by name.

    Attributes:
        program: the program in normal form; its variables have the names of ``source.program``'s.
        source: the scalarized program and what became of the variables of the given one.
        exponents: e of every variable of ``source.program``, None where it is exactly zero.

    Raises:
        NotCoveredError: a variable has no limit law: a nonlinearity's argument grows, the leading terms of a sum
            cancel, or a matrix is used both ways between axes that grow at different rates.

    Example:
        >>> from tensorprog.program.text import parse
        >>> nf = NormalForm(parse("dim n\nmatrix W : n x n ~ N(0, 4)\nvector x : n\nh = n^-1*relu(W @ x)"))
        >>> nf.exponents["h"], str(nf.program.lines[-1].fn.terms[0][0])
        (Fraction(-1, 2), '1')
    """

    def __init__(self, program: Program, values: Values | None = None, *,
                 data: Mapping[str, Sequence[Fraction]] | None = None, ratios: Mapping[str, Any] | None = None):
        self.ratios = ratios or {}
        for name, ratio in self.ratios.items():
            dim = program.dims.get(name)
            if dim is None or dim.is_fixed:
                raise ProgramError(f"ratios {name}", name, "no dimension of this name grows",
                                   "name one of: " + ", ".join(d for d, x in program.dims.items() if not x.is_fixed))
            if getattr(ratio, "is_positive", None) is False or (isinstance(ratio, int | Fraction) and ratio <= 0):
                raise ProgramError(f"ratios {name}", ratio, "a ratio of sizes is positive",
                                   "use a number > 0, or a symbol with positive=True")
        self.source = Scalarized(program, data)
        self.values: Values = values or {}
        self.scaling = Scaling(self.source.program, self.values)
        self.dims = self.source.program.dims
        self.program = Program(self.dims.values())
        self.program.reserve(self.source.program.names)
        self.exponents: dict[str, Fraction | None] = {}
        self.ways: dict[str, bool] = {}
        for line in self.source.program.lines:
            if isinstance(line.type if isinstance(line, Input) else None, MatrixType):
                normal[line](self, line, Fraction(0))
                continue
            e = self.exponents[line.out] = self.scaling.exponent(line.out)
            if e is None:
                self.constant(line.out, Fraction(0))
            else:
                normal[line](self, line, e)
        self.program.freeze()

    # ------------------------------------------------------------------------------------------ helpers

    def lead(self, scale: Scale) -> tuple[Any, Fraction]:
        """Return a coefficient as (number, exponent): ``number * n^exponent``, ratios of dimensions in the number."""
        number = Scale(scale.number)
        for name, power in scale.powers:
            dim, p = self.dims[name], power.value(self.values)
            number = number * Scale.of(self.ratios.get(name, dim.factor)) ** p
        return number.number, scale.exponent(self.source.program.growths, self.values)

    def constant(self, out: str, value: Any) -> str:
        """Write the variable ``out`` as a constant, along the axis that it has in the source."""
        t = self.source.program.type_of(out)
        return self.program.add(Input(out, t, Constant(Scale.of(value))))

    def size(self, name: str) -> Fraction | None:
        """Return the exponent of a vector or scalar, None if it is exactly zero."""
        return self.exponents[name]

    def keep(self, line, fn, args: Sequence[str]) -> None:
        """Write ``line.out = fn(args)``."""
        args = tuple(args)
        t = self.source.program.type_of(line.out)
        if isinstance(t, VectorType) and not any(isinstance(self.program.type_of(a), VectorType) for a in args):
            one = self.program.fresh("_one")
            self.program.add(Input(one, t, Constant(ONE)))
            wide = Poly(len(args) + 1, tuple((c, (*p, 1)) for c, p in fn.terms)) if isinstance(fn, Poly) else None
            if wide is None:
                inner = self.program.add(Nonlin(self.program.fresh("_c"), fn, args))
                wide, args = Poly.product(2), (inner,)
            fn, args = wide, (*args, one)
        self.program.add(Nonlin(line.out, fn, args))


def refuse(line, value, reason: str, fix: str) -> NotCoveredError:
    """Return the error for a line whose limit does not exist."""
    return NotCoveredError(spell(line), value, reason, fix)


# ------------------------------------------------------------------------------------------------ the rules


@normal(Input)
def _input(self: NormalForm, line: Input, e: Fraction) -> None:
    law, t = line.law, line.type
    if isinstance(t, MatrixType):
        assert isinstance(law, Normal)  # scalarize has taken the mean out, and constants
        number, power = self.lead(law.variance)
        factor, growth = self.lead(Scale.power(t.cols.name, 1))
        self.exponents[line.out] = (power + growth) / 2
        variance = Scale.of(number) * factor * Scale.power(t.cols.name, -1)
        self.program.add(Input(line.out, t, Normal(NOTHING, variance)))
        return
    if isinstance(law, Constant):
        self.constant(line.out, self.lead(law.value)[0])
    elif isinstance(law, Joint):
        sizes = [self.scaling.exponent(x) for x in law.group]
        means = tuple(_at(self, m, s) for m, s in zip(law.means, sizes, strict=True))
        covariance = tuple(tuple(_at(self, c, None if r is None or s is None else r + s)
                                 for c, s in zip(row, sizes, strict=True))
                           for row, r in zip(law.covariance, sizes, strict=True))
        self.program.add(Input(line.out, t, Joint(law.group, law.index, means, covariance)))
    else:
        assert isinstance(law, Normal)
        self.program.add(Input(line.out, t, Normal(_at(self, law.mean, e), _at(self, law.variance, 2 * e))))


def _at(self: NormalForm, scale: Scale, e: Fraction | None) -> Scale:
    """Return the number in front of ``n^e``, zero if the coefficient is smaller."""
    if scale.is_zero or e is None:
        return NOTHING
    number, power = self.lead(scale)
    return Scale.of(number) if power == e else NOTHING


@normal(MatMul)
def _matmul(self: NormalForm, line: MatMul, e: Fraction) -> None:
    rows, cols = self.program.axes_of(line.matrix)
    std, size = self.exponents[line.matrix], self.size(line.vector)
    assert std is not None and size is not None
    other = self.ways.setdefault(line.matrix, line.transposed)
    if other != line.transposed and rows.growth != cols.growth:
        raise refuse(line, f"{rows.name} ~ n^{rows.growth}, {cols.name} ~ n^{cols.growth}",
                     f"{line.matrix} is used both ways between axes that grow at different rates",
                     "give both axes one growth, or use an independent matrix")
    if line.transposed:
        std = std + (rows.growth - cols.growth) / 2
    if e != std + size:
        raise refuse(line, f"n^({e})", f"its Gaussian part is n^({std + size}), which is not the leading one",
                     "give both axes of the matrix one growth")
    if line.transposed and rows.growth != cols.growth:
        # normal backwards: variance over rows, not columns
        inner = self.program.add(MatMul(self.program.fresh("_w"), line.matrix, line.vector, True))
        number, _ = self.lead(Scale.power(rows.name, HALF) * Scale.power(cols.name, -HALF))
        ratio = Scale.power(cols.name, HALF) * Scale.power(rows.name, -HALF) * Scale.of(number)
        self.program.add(Nonlin(line.out, Poly(1, ((ratio, (1,)),)), (inner,)))
        return
    self.program.add(MatMul(line.out, line.matrix, line.vector, line.transposed))


@normal(Nonlin)
def _nonlin(self: NormalForm, line: Nonlin, e: Fraction) -> None:
    if isinstance(line.fn, Poly):
        _poly(self, line, line.fn, line.args, e)
    elif isinstance(line.fn, Diff):
        _diff(self, line, line.fn.fn, e)
    else:
        _function(self, line, line.fn, e)


def _poly(self: NormalForm, line: Nonlin, fn: Poly, args: Sequence[str], e: Fraction) -> None:
    sizes = [self.size(a) for a in args]
    leading, top = [], None
    for coef, powers in fn.terms:
        if any(p and s is None for p, s in zip(powers, sizes, strict=True)):
            continue
        number, size = self.lead(coef)
        size += sum((s * p for s, p in zip(sizes, powers, strict=True) if p and s is not None), Fraction(0))
        if top is None or size > top:
            leading, top = [], size
        if size == top:
            leading.append((Scale.of(number), powers))
    if top != e:
        raise refuse(line, f"n^({top})", f"its leading terms cancel: it is of order n^({e})",
                     "write the line so that they do not occur")
    used = [i for i in range(len(args)) if any(p[i] for _, p in leading)]
    keep = used or [0]
    slim = Poly(len(keep), tuple((c, tuple(p[i] for i in keep)) for c, p in leading))
    if not used:  # a number for all coordinates
        total = slim.terms[0][0] if slim.terms else NOTHING
        self.constant(line.out, total)
        return
    self.keep(line, slim, [args[i] for i in keep])


def _function(self: NormalForm, line: Nonlin, fn, e: Fraction) -> None:
    sizes = [self.size(a) for a in line.args]
    known = [s for s in sizes if s is not None]
    degree, top = getattr(fn, "degree", None), max(known, default=None)
    if top is None or (top < 0 and degree is None):
        _vanishing(self, line, fn, e)
    elif degree is not None and all(s is None or s == top for s in sizes):
        self.keep(line, fn, line.args)
    elif top > 0:
        raise refuse(line, f"n^({top})", f"the argument of {fn.name} grows with n", "scale it down to order 1")
    else:  # arguments of lower order are zero in the limit
        small = {a for a, s in zip(line.args, sizes, strict=True) if s is not None and s < top}
        self.keep(line, fn, [_nought(self, a) if a in small else a for a in line.args])


def _nought(self: NormalForm, like: str) -> str:
    t = self.program.type_of(like)
    return self.program.add(Input(self.program.fresh("_0"), t, Constant(NOTHING)))


def _vanishing(self: NormalForm, line: Nonlin, fn, e: Fraction) -> None:
    """Write the first term of the Taylor series at 0."""
    if e == 0:
        self.keep(line, fn, [_nought(self, a) for a in line.args])
        return
    args: Sequence[str] = line.args
    if len(args) != 1:
        raise refuse(line, f"n^({e})", f"all arguments of {fn.name} vanish, and it vanishes at 0",
                     "scale the arguments to order 1")
    self.keep(line, Poly(1, (_taylor(self, line, fn, args[0], e),)), args)


def _taylor(self: NormalForm, line, fn, x: str, e: Fraction):
    """Return the monomial of order n^e in the Taylor series of fn at 0."""
    size, order, factorial, record = self.size(x), 0, 1, fn
    assert size is not None
    while order * size > e and record is not None:
        order += 1
        factorial *= order
        record = record.partial(0)
    if order * size != e or record is None:
        raise refuse(line, f"n^({e})", f"no term of the Taylor series of {fn.name} has this order",
                     "scale its argument to order 1")
    return Scale.of(_value(record, 0)) * Fraction(1, factorial), (order,)


def _value(record, x: int):
    import sympy

    return record.expression(sympy.Integer(x))


def _diff(self: NormalForm, line: Nonlin, fn, e: Fraction) -> None:
    k = fn.arity
    xs, ds = line.args[:k], line.args[k:]
    here = max((s for a in xs if (s := self.size(a)) is not None), default=None)
    step = max((s for a in ds if (s := self.size(a)) is not None), default=None)
    assert step is not None  # else the line is exactly zero
    degree = getattr(fn, "degree", None)
    if fn.name == "identity":
        _poly(self, line, Poly.linear([1]), ds, e)
    elif here is not None and here > step and (here == 0 or degree is not None):
        _differential(self, line, fn, xs, ds, step, e)
    elif (step == 0 or degree is not None) and (here is None or here == step):
        self.keep(line, Diff(fn), line.args)
    elif step == 0:
        self.keep(line, Diff(fn), [*(_nought(self, x) for x in xs), *ds])
    elif max(step, step if here is None else here) < 0 and k == 1:
        slope = fn.partial(0)
        if slope is None or e != step:
            raise refuse(line, f"n^({e})", f"the increment of {fn.name} near 0 is not of first order",
                         "scale its argument to order 1")
        self.keep(line, Poly.linear([_value(slope, 0)]), ds)
    else:
        raise refuse(line, f"n^({max(step, step if here is None else here)})",
                     f"the argument of {fn.name} grows with n", "scale it down to order 1")


def _differential(self: NormalForm, line: Nonlin, fn, xs, ds, step: Fraction, e: Fraction) -> None:
    """Write ``sum_i phi_i'(x) dx_i`` over the largest dx_i."""
    here = max(s for a in xs if (s := self.size(a)) is not None)
    names: list[str] = []
    for i, d in enumerate(ds):
        slope = fn.partial(i)
        if self.size(d) != step or slope is None:
            continue
        args = [x if self.size(x) == here else _nought(self, x) for x in xs]
        factor = self.program.add(Nonlin(self.program.fresh("_d"), slope, tuple(args)))
        names += [factor, d]
    degree = getattr(fn, "degree", None)
    order = step + (degree - 1) * here if degree is not None else step
    if not names or order != e:
        raise refuse(line, f"n^({e})", f"the increment of {fn.name} is not of first order", "raise the learning rate")
    pairs = len(names) // 2
    self.keep(line, Poly(len(names), tuple((ONE, tuple(int(j // 2 == i) for j in range(len(names))))
                                           for i in range(pairs))), names)


@normal(Moment)
def _moment(self: NormalForm, line: Moment, e: Fraction) -> None:
    dim: Dim = self.source.program.dim_of(line.args[0])
    sizes = [self.size(a) for a in line.args]
    assert all(s is not None for s in sizes)
    top = sum((s for s in sizes if s is not None), Fraction(0)) + (Fraction(0) if line.mean else dim.growth)
    number, _ = (Fraction(1), None) if line.mean else self.lead(Scale.power(dim.name, 1))
    if e == top:
        if number == 1:
            self.program.add(Moment(line.out, line.args))
            return
        inner = self.program.add(Moment(self.program.fresh("_m"), line.args))
        self.program.add(Nonlin(line.out, Poly(1, ((Scale.of(number), (1,)),)), (inner,)))
    elif e >= top - dim.growth / 2 and (narrow := _narrower(self, line, dim)) is not None:
        raise refuse(line, f"n^({e})", f"its mean vanishes, and it may be as large as sums over {narrow.name} "
                     f"behind it, which grows more slowly than {dim.name}", "give these axes one growth")
    elif e == top - dim.growth / 2:
        inner = self.program.add(Moment(self.program.fresh("_m"), line.args, mean=False))
        coef = Scale.power(dim.name, -HALF) * self.lead(Scale.power(dim.name, HALF if not line.mean else -HALF))[0]
        self.program.add(Nonlin(line.out, Poly(1, ((coef, (1,)),)), (inner,)))
    else:
        raise refuse(line, f"n^({e})", f"its leading terms, of order n^({top}), cancel",
                     "write the line so that they do not occur")


def _narrower(self: NormalForm, line: Moment, dim: Dim) -> Dim | None:
    """Return a growing axis behind a sum's factors that makes it larger than independent summands would, None if there
    is none: nothing does if one factor is an initial vector that the others do not depend on."""
    program = self.source.program
    behind: dict[str, set[str]] = {}
    for a in line.args:
        stack, found = [a], behind.setdefault(a, set())
        while stack:
            if (x := stack.pop()) not in found:
                found.add(x)
                stack += program.line_of(x).args
    for a in line.args:
        source = program.line_of(a)
        if isinstance(source, Input) and isinstance(source.law, Normal) and sum(a in x for x in behind.values()) == 1:
            return None
    types = [program.type_of(x) for found in behind.values() for x in found]
    return next((t.dim for t in types if isinstance(t, VectorType) and 0 < t.dim.growth < dim.growth), None)


@normal(Outer)
def _outer(self: NormalForm, line: Outer, e: Fraction) -> None:
    raise refuse(line, line.out, "updates are written out before", "scalarize the program first")
