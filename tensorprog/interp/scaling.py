"""The scaling reading: the power of n at which every variable of a program grows.

One rule an instruction. A vector is a sum of terms ``n^e`` with a parity (which sign flips it is odd under), a scalar
an exponent; a contraction gains n^growth where its summands are correlated (law of large numbers) and n^(growth/2)
where they are not (central limit). An exponent is an upper bound, attained unless an expectation vanishes by accident.

With ``aligned=True`` no parities are kept and every contraction counts as correlated: full alignment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tensorprog.atoms.diff import Diff
from tensorprog.errors import NotCoveredError
from tensorprog.exponents.affine import Values
from tensorprog.exponents.parity import NOTHING, Family, span
from tensorprog.exponents.scale import Scale
from tensorprog.exponents.terms import (
    ZERO,
    Term,
    Terms,
    contract,
    even_hull,
    hull,
    leading,
    matches,
    numeric,
    product,
    prune,
    scaled,
    times,
    total,
)
from tensorprog.interp.expansion import (
    Undefined,
    increment,
    polynomial,
    scalar_increment,
    scalar_value,
    value,
)
from tensorprog.interp.rules import Rules
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

scaling = Rules("scaling")


@dataclass(slots=True)
class Use:
    """One product with a random matrix: what went in, which fresh Gaussians were born, under which name."""

    name: str
    argument: Terms
    hats: Terms


@dataclass(slots=True)
class Gaussian:
    """A random matrix in the calculus: the exponents of its standard deviation and mean, and its uses so far."""

    std: Fraction | None
    mean: Fraction | None
    rows: Fraction
    cols: Fraction
    families: tuple[Family, Family]
    uses: tuple[list[Use], list[Use]] = field(default_factory=lambda: ([], []))
    seen: dict = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a variable has its exponent: the law that set the leading term, and the variable it came through."""

    law: str
    via: str = ""


class Scaling:
    """The result: ``exponent(name)`` of every vector and scalar, with the reason.

    Args:
        program: any verified program.
        values: a rational for every unknown exponent.
        aligned: count every contraction as correlated.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, x = p.matrix("W", n, n), p.vector("x", n)
        >>> s = p.sum((W @ x) * x).name           # W x and x are independent: central limit
        >>> Scaling(p).exponent(s)
        Fraction(1, 2)

    Source: the symmetry argument is that of the Master Theorem's Gaussian families (Tensor Programs III, IVb).
    """

    def __init__(self, program: Program, values: Values | None = None, *, aligned: bool = False):
        self.program, self.aligned = program, aligned
        self.values: Mapping[str, Fraction] = values if values is not None else {}
        self.growths = program.growths
        self.narrow = len({g for g in self.growths.values() if g}) > 1
        self.states: dict = {}
        self.reasons: dict[str, Reason] = {}
        self.onehot: dict[str, int] = {}
        self._bits = 0
        self._joint: dict = {}
        #: The flips that anything along axes of a growth depends on.
        self._along: dict[Fraction, int] = {}
        for line in program.lines:
            self.step(line)

    # ------------------------------------------------------------------------------------------ results

    def exponent(self, name: str) -> Fraction | None:
        """Return the exponent of a vector or scalar, None if it is exactly zero; NotCoveredError if undefined."""
        state = self.states[name]
        if isinstance(state, Undefined):
            raise self.uncovered(name)
        return leading(state) if isinstance(state, tuple) else state

    def uncovered(self, name: str) -> NotCoveredError:
        """Return the error that says why a variable has no exponent."""
        return NotCoveredError(spell(self.program.line_of(name)), name,
                               f"no exponent follows: {self.states[name].because}",
                               "look at the first variable that grows with n")

    def defined(self, name: str) -> bool:
        """Return whether the calculus has an exponent for it."""
        return not isinstance(self.states[name], Undefined)

    def get(self, name: str) -> Fraction | None:
        """Return the exponent, None if zero or undefined."""
        return self.exponent(name) if self.defined(name) else None

    # ------------------------------------------------------------------------------------------ helpers

    def step(self, line) -> None:
        """Read one line."""
        for a in line.args:
            state = self.states[a]
            if isinstance(state, Undefined):
                self.states[line.out] = state
                return
        rule = scaling[line]
        state = self.states[line.out] = rule(self, line)
        if isinstance(state, tuple) and self.narrow:
            growth = self.growth(line.out)
            for t in state:
                self._along[growth] = self._along.get(growth, 0) | t.o | t.space.support

    def new_bit(self) -> int:
        """Return a new generator."""
        self._bits += 1
        return self._bits - 1

    def coefficient(self, scale: Scale) -> Fraction:
        """Return the exponent of a coefficient."""
        return scale.exponent(self.growths, self.values)

    def size(self, scale: Scale) -> Fraction | None:
        """Return the exponent of a coefficient that may be zero."""
        return None if scale.is_zero else self.coefficient(scale)

    def growth(self, name: str) -> Fraction:
        """Return the growth of the axis of a vector; 0 for a scalar."""
        t = self.program.type_of(name)
        return t.dim.growth if isinstance(t, VectorType) else ZERO

    def terms(self, name: str) -> Terms:
        """Return a variable's terms; a scalar is a number for the coordinates, without parity."""
        state = self.states[name]
        return state if isinstance(state, tuple) else numeric(state)

    def orthogonal(self, names: Iterable[str]) -> bool:
        """Return whether two of the vectors are different one-hot data: then their product is zero."""
        return len({self.onehot[a] for a in names if a in self.onehot}) > 1

    def odd(self, e: Fraction, bit: int) -> Term:
        """Return a fresh Gaussian of size n^e."""
        return Term(e) if self.aligned else Term(e, 1 << bit, NOTHING)


# ------------------------------------------------------------------------------------------------ the rules


@scaling(Input)
def _input(self: Scaling, line: Input):
    law, t = line.law, line.type
    self.reasons[line.out] = Reason("input")
    if isinstance(t, MatrixType):
        families = (Family(self.new_bit), Family(self.new_bit))
        if isinstance(law, Constant):
            return Gaussian(None, self.size(law.value), t.rows.growth, t.cols.growth, families)
        assert isinstance(law, Normal)  # the program saw to it that a matrix has one of the two
        variance, mean = self.size(law.variance), self.size(law.mean)
        return Gaussian(None if variance is None else variance / 2, mean, t.rows.growth, t.cols.growth, families)
    if isinstance(t, ScalarType):
        return self.size(law.value) if isinstance(law, Constant) else ZERO
    if isinstance(law, Data):
        if law.onehot is not None:
            # distinct coordinates are orthogonal: they give a matrix independent columns
            self.onehot[line.out] = law.onehot
            key = (t.dim.name, law.onehot)
            if key not in self._joint:
                self._joint[key] = self.new_bit()
            return (self.odd(ZERO, self._joint[key]),)
        if law.values is not None and not any(law.values):
            return ()
        return numeric(ZERO)
    if isinstance(law, Constant):
        return numeric(self.size(law.value))
    if isinstance(law, Joint):
        if law.group not in self._joint:
            self._joint[law.group] = _factors(self, law)
        spread = [self.odd(e, bit) for bit, e in self._joint[law.group][law.index]]
        mean = self.size(law.means[law.index])
        return prune([*numeric(mean), *spread], t.dim.growth)
    mean, variance = self.size(law.mean), self.size(law.variance)
    spread = [] if variance is None else [self.odd(variance / 2, self.new_bit())]
    return prune([*numeric(mean), *spread], t.dim.growth)


def _factors(self: Scaling, law: Joint) -> list[list[tuple[int, Fraction]]]:
    """Return, for each vector of a jointly Gaussian group, its generator: vectors that correlate share one."""
    k = len(law.group)
    root = list(range(k))
    for _ in range(k):
        for i in range(k):
            for j in range(k):
                if not law.covariance[i][j].is_zero:
                    root[i] = root[j] = min(root[i], root[j])
    bits = {r: self.new_bit() for r in sorted(set(root))}
    out: list[list[tuple[int, Fraction]]] = []
    for i in range(k):
        variance = self.size(law.covariance[i][i])
        out.append([] if variance is None else [(bits[root[i]], variance / 2)])
    return out


@scaling(MatMul)
def _matmul(self: Scaling, line: MatMul):
    matrix, x = self.states[line.matrix], self.states[line.vector]
    if isinstance(matrix, Update):
        return matrix.apply(self, line, x)
    # W maps along cols; transposed, along rows
    side = int(line.transposed)
    d_in, d_out = (matrix.rows, matrix.cols) if side else (matrix.cols, matrix.rows)
    out: list[Term] = []
    if matrix.mean is not None:
        e, law = total(x, d_in)
        if e is not None:
            out.append(Term(matrix.mean + e))
            self.reasons[line.out] = Reason(law, line.vector)
    if matrix.std is None or not x:
        return prune(out, d_out)
    key = (side, x, len(matrix.uses[1 - side]))
    known = matrix.seen.get(key)
    if known is not None and not out:
        self.reasons[line.out] = known[1]
        return known[0]
    family = matrix.families[side]
    hats = tuple(_hat(self, t, family, d_in / 2 + matrix.std) for t in x)
    out += hats
    if 0 < d_in < d_out and not self.aligned:
        # inner products over the narrower axis do not vanish as fast: a part of x is aligned with whatever is along it
        out.append(Term(hats[0].e - d_in / 2, hats[0].o, span(family.shift(self._along[d_in]))))
    dots: list[tuple[Fraction, str]] = []
    gain = matrix.std + d_in - d_out / 2
    if self.aligned:
        # whatever multiplied the transpose before, or will once it is trained, the input may come to align with it
        out.append(Term(gain + x[0].e))
        dots.append((gain + x[0].e, line.matrix))
    else:
        for use in matrix.uses[1 - side]:
            for source, hat in zip(use.argument, use.hats, strict=True):
                kappa = next((t.e for t in x if matches(t, hat)), None)
                if kappa is not None:
                    out.append(Term(gain + kappa, source.o, source.space))
                    dots.append((gain + kappa, use.name))
    if all(use.argument != x for use in matrix.uses[side]):
        matrix.uses[side].append(Use(line.out, x, hats))
    result = prune(out, d_out)
    best = max(dots, default=None, key=lambda d: d[0])
    born = hats[0].e
    if best is not None and best[0] > born:
        reason = Reason("LLN", best[1])
    elif line.out in self.reasons and result[0].e > born:
        reason = self.reasons[line.out]
    else:
        reason = Reason("CLT" if d_in else "sum", line.vector)
    self.reasons[line.out] = reason
    matrix.seen[key] = (result, reason)
    return result


def _hat(self: Scaling, t: Term, family: Family, gain: Fraction) -> Term:
    if self.aligned:
        return Term(t.e + gain)
    return Term(t.e + gain, family.hat(t.o), family.shift_space(t.space))


@scaling(Nonlin)
def _nonlin(self: Scaling, line: Nonlin):
    fn, growth = line.fn, self.growth(line.out)
    vector = isinstance(self.program.type_of(line.out), VectorType)
    self.reasons[line.out] = Reason("nonlinearity", line.args[0] if line.args else "")
    if isinstance(fn, Poly):
        args = [self.terms(a) for a in line.args]
        out = polynomial(fn, args, self.coefficient, growth)
        self.reasons[line.out] = _largest(self, line.args, fn, leading(out))
        return out if vector else leading(out)
    if vector:
        args = [self.terms(a) for a in line.args]
        if isinstance(fn, Diff):
            k = fn.fn.arity
            out = increment(fn.fn, args[:k], args[k:], growth)
        else:
            out = value(fn, args, growth)
        return prune(out, growth) if isinstance(out, tuple) else out
    sizes = [self.states[a] for a in line.args]
    if isinstance(fn, Diff):
        k = fn.fn.arity
        return scalar_increment(fn.fn, sizes[:k], sizes[k:])
    return scalar_value(fn, sizes)


def _largest(self: Scaling, args: Sequence[str], fn: Poly, top: Fraction | None) -> Reason:
    """Return which argument's monomial set the size of a polynomial."""
    if top is None:
        return Reason("zero")
    for scale, powers in fn.terms:
        present = [a for a, p in zip(args, powers, strict=True) if p]
        sizes = [s for a in present if (s := leading(self.terms(a))) is not None]
        if len(sizes) < len(present):
            continue
        e = self.coefficient(scale) + sum((s * p for s, p in zip(sizes, (p for p in powers if p), strict=True)), ZERO)
        if e == top:
            return Reason("sum" if len(fn.terms) > 1 else "product", present[0] if present else "")
    return Reason("sum")


@scaling(Moment)
def _moment(self: Scaling, line: Moment):
    growth = self.growth(line.args[0])
    factors = [self.states[a] for a in line.args]
    head = factors[0]
    for f in factors[1:-1]:
        head = product(head, f, growth)
    last = factors[-1] if len(factors) > 1 else numeric(ZERO)
    if self.orthogonal(line.args):
        return None
    e, law = contract(head, last, growth)
    self.reasons[line.out] = Reason(law, line.args[0])
    return None if e is None else e - growth if line.mean else e


# ------------------------------------------------------------------------------------------------ updates


@dataclass(slots=True)
class Piece:
    """A rank-one contribution to an update: rows (x) cols, each with its parity; sizes are in ``size``."""

    size: Fraction
    rows: Terms
    cols: Terms
    source: tuple[str, str]


@dataclass(slots=True)
class Update:
    """A weight update in the calculus: a sum of rank-one pieces along two axes."""

    pieces: list[Piece]
    rows: Fraction
    cols: Fraction

    def apply(self, scaling: Scaling, line: MatMul, x: Terms) -> Terms:
        """Return the terms of the update times a vector."""
        d_in, d_out = (self.rows, self.cols) if line.transposed else (self.cols, self.rows)
        out: list[Term] = []
        best = None
        for piece in self.pieces:
            u, v = (piece.cols, piece.rows) if line.transposed else (piece.rows, piece.cols)
            source = piece.source[0 if line.transposed else 1]
            if scaling.orthogonal((source, line.vector)):
                continue
            e, law = contract(v, x, d_in)
            if e is None or not u:
                continue
            out += scaled(u, piece.size + e)
            if best is None or piece.size + e + u[0].e > best[0]:
                best = (piece.size + e + u[0].e, law, source)
        if best is not None:
            scaling.reasons[line.out] = Reason(best[1], best[2])
        return prune(out, d_out)


@scaling(Outer)
def _outer(self: Scaling, line: Outer):
    rows, cols = (d.growth for d in self.program.axes_of(line.out))
    coef, gradient = self.coefficient(line.coef), self.coefficient(line.gradient)
    self.reasons[line.out] = Reason("update")
    pieces: list[Piece] = []
    if line.rule.linear:
        weights = line.rule.linear_weights(len(line.pairs) - 1)
        for weight, pairs in zip(weights, line.pairs, strict=True):
            pieces += [Piece(coef + gradient, self.states[u], self.states[v], (u, v)) for u, v in pairs if weight]
        return Update(pieces, rows, cols)
    entries = [
        (gradient + s.e + r.e, s, r, (u, v))
        for pairs in line.pairs for u, v in pairs for s in self.states[u] for r in self.states[v]
    ]
    if not entries:
        return Update([], rows, cols)
    eps = self.size(line.eps)
    groups: dict = {}
    for entry in entries:
        # one-hot columns do not overlap: each has its own gradient entries, hence its own scale
        groups.setdefault(self.onehot.get(entry[3][1]), []).append(entry)
    for group in groups.values():
        pieces += _entrywise(group, coef, eps, max(rows, cols))
    return Update(pieces, rows, cols)


def _entrywise(entries, coef: Fraction, eps: Fraction | None, growth: Fraction) -> list[Piece]:
    """Expand an odd, scale-free function of the gradient's entries around its leading terms.

    ``Q(sum u v^T)`` has entries Theta(1), odd in the rows jointly and in the columns jointly; where epsilon is larger
    than the gradient, Q is linear: the ratio of the two.
    """
    top = max(e for e, *_ in entries)
    size = coef if eps is None or eps <= top else coef + top - eps
    inside = [(s, r) for e, s, r, _ in entries if e == top]
    rows, cols = [s for s, _ in inside], [r for _, r in inside]
    source = next(names for e, _, _, names in entries if e == top)
    out = [Piece(size, (Term(ZERO, *hull(rows)),), (Term(ZERO, *hull(cols)),), source)]
    even_rows, even_cols = Term(ZERO, *even_hull(rows)), Term(ZERO, *even_hull(cols))
    done = set()
    for e, s, r, names in entries:
        key = (e, s.o, s.space, r.o, r.space)
        if e < top and top - e < growth / 2 and key not in done:
            done.add(key)
            out.append(Piece(size + e - top, (times(even_rows, Term(ZERO, s.o, s.space)),),
                             (times(even_cols, Term(ZERO, r.o, r.space)),), names))
    return out
