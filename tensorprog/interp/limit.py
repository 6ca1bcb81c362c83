r"""The Master Theorem as an interpreter: Z^v of every vector, the limit of every scalar, exactly.

One rule an instruction, over programs in normal form:

    Input     Z is Gaussian, jointly as declared
    MatMul    Z^{Wx} = Zhat^{Wx} + Zdot^{Wx}:  hats of one W are jointly Gaussian, with covariance
              sigma^2 E[Z^x Z^{x'}], independent of everything before and of the hats of W^T;
              Zdot^{Wx} = sigma^2 sum_j Z^{y_j} E[d Z^x / d Zhat^{W^T y_j}] over the earlier uses W^T y_j
              (for W^T, both with sigma^2 rho, rho = rows / columns)
    Nonlin    Z^{phi(x, ...; theta)} = phi(Z^x, ...; theta)
    Moment    mean: the expectation of the product. A sum v.x / sqrt(n) with v independent of x: a Gaussian number,
              with covariance E[Z^v Z^v'] E[Z^x Z^{x'}]

Source: yang2020matrix (Master Theorem, NETSOR-T+), yang2021feature (Definition 7.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tensorprog.atoms.diff import Diff
from tensorprog.errors import NotCoveredError
from tensorprog.exponents.affine import Values
from tensorprog.exponents.scale import Scale
from tensorprog.gauss.chain import Chain, Number, add, canonical, mul
from tensorprog.gauss.quadrature import within
from tensorprog.interp.covered import Covered
from tensorprog.interp.normal import NormalForm
from tensorprog.interp.rules import Rules
from tensorprog.interp.sums import Sums
from tensorprog.interp.sums import Unknown as Unknown
from tensorprog.interp.zspace import Jump, ZSpace
from tensorprog.interp.zvar import ZVar, constant
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
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

limit = Rules("limit")


@dataclass(slots=True)
class Use:
    """One product with a random matrix: the line, Z of the vector that went in, its hat, the whole result."""

    name: str
    vector: str
    argument: ZVar
    hat: ZVar
    result: ZVar


@dataclass(slots=True)
class Matrix:
    """A random matrix: the variance of its hats relative to E[x^2], forwards and backwards, and its uses both ways."""

    gains: tuple[Number, Number]
    uses: tuple[list[Use], list[Use]] = field(default_factory=lambda: ([], []))


@dataclass(frozen=True, slots=True)
class Step:
    """What happened at a line: the rule, the hat that was born, the dots with the uses that they came from."""

    name: str
    rule: str
    result: ZVar
    hat: ZVar | None = None
    dots: tuple[tuple[Number, str, str], ...] = ()  # coefficient, the earlier use, the vector it multiplied


class Limits:
    r"""The limits of a program's variables.

    A variable v of the program is ``n^e * v'``, e its exponent, and ``z(v)`` is Z^{v'}; a scalar's is a number.

    Args:
        program: any program.
        values: a rational for every unknown exponent.
        data: coordinates of generic data by name, exact rationals.
        ratios: for dimensions of growth 1, a sympy symbol or number to stand for their ratio to n.
        budget: seconds after which no further expectation is begun (NoClosedFormError); None: as long as it takes.

    Attributes:
        form: the normal form that was read.
        space: the sources and their joint law; ``space.chain``: the named quantities.
        steps: what happened, line by line.
        sums: the scalars that stay random (Gaussian) in the limit; ``randoms``: their symbols, with covariances.

    Raises:
        NotCoveredError: the theory does not cover a line; it names the line, the value, the reason, the fix.

    Example:
        >>> from tensorprog.program.text import parse
        >>> limits = Limits(parse('''
        ... dim n
        ... matrix W : n x n ~ N(0, 1/n)
        ... vector x : n ~ N(0, 1)
        ... y = W.T @ relu(W @ x)
        ... s = mean(x * y)
        ... t = mean(y * y)'''))
        >>> limits.scalar("s"), limits.scalar("t")
        (Fraction(1, 2), Fraction(3, 4))
    """

    def __init__(self, program: Program, values: Values | None = None, *,
                 data: Mapping[str, Sequence[Fraction]] | None = None, ratios: Mapping[str, Any] | None = None,
                 budget: float | None = None):
        self.form = NormalForm(program, values, data=data, ratios=ratios)
        self.program = self.form.program
        Covered(self.program)
        self.chain = Chain()
        self.space = ZSpace(self.chain)
        self.env: dict[str, Any] = {}
        self.steps: list[Step] = []
        self.sums = Sums(self)
        self.randoms = self.sums.randoms
        self._groups: dict[tuple[str, ...], list[tuple[int, ZVar]]] = {}
        with within(budget):
            for line in self.program.lines:
                unknown = next((x for a in line.args if isinstance(x := self.env[a], Unknown)), None)
                self.env[line.out] = limit[line](self, line) if unknown is None else unknown

    # ------------------------------------------------------------------------------------------ results

    def names(self, name: str) -> Any:
        """Return what a variable of the given program became: a variable, a number, or a tuple of them."""
        self.form.source.source.type_of(name)
        return self.form.source.of[name]

    def z(self, name: str) -> ZVar:
        """Return Z of a variable of the normal form; raises NotCoveredError where it is not known."""
        found = self.env[name]
        if isinstance(found, Unknown):
            raise found.error
        return found

    def exponent(self, name: str) -> Fraction | None:
        """Return the exponent of a variable of the normal form, None if it is exactly zero."""
        return self.form.exponents.get(name, Fraction(0))

    def scalar(self, name: str) -> Number:
        """Return the limit of a scalar of the normal form: a number, perhaps with Gaussian symbols."""
        number = self.z(name).number
        if number is None:
            raise NotCoveredError(name, name, "this is a vector: its limit is a random variable", "ask for its moments")
        return number

    # ------------------------------------------------------------------------------------------ helpers

    def step(self, line, rule: str, result: ZVar, **more) -> ZVar:
        """Note what happened and return the result."""
        self.steps.append(Step(line.out, rule, result, **more))
        return result


# ------------------------------------------------------------------------------------------------ the rules


@limit(Input)
def _input(self: Limits, line: Input):
    law: Any = line.law
    if isinstance(line.type, MatrixType):
        # entries N(0, v / columns): hats have variance v forwards, v * rows / columns backwards
        rows, cols = line.type.rows, line.type.cols
        v = canonical(law.variance.number)
        if rows.growth != cols.growth:  # used one way only; the normal form has taken care of the rest
            return Matrix((v, v))
        rho, _ = self.form.lead(Scale.power(rows.name, 1) * Scale.power(cols.name, -1))
        return Matrix((v, mul(v, canonical(rho))))
    if isinstance(law, Constant):
        return self.step(line, "constant", constant(canonical(law.value.number)))
    if isinstance(law, Normal):
        mean, variance = canonical(law.mean.number), canonical(law.variance.number)
        z = constant(mean) if variance == 0 else self.space.source(line.out, variance=variance, mean=mean)
        return self.step(line, "input", z)
    assert isinstance(law, Joint)
    return self.step(line, "input", _joint(self, line, law))


def _inverse(x: Number) -> Number:
    return Fraction(1) / x if isinstance(x, Fraction) else canonical(1 / x)


def _joint(self: Limits, line: Input, law: Joint) -> ZVar:
    born = self._groups.setdefault(law.group, [])
    row = law.covariance[law.index]
    sources = {_source(z): (z, canonical(row[i].number)) for i, z in born if _is_source(z)}
    family = list(sources.values())
    mean = canonical(law.means[law.index].number)
    z = gaussian(self.space, line.out, canonical(row[law.index].number), family)
    born.append((law.index, z))
    return z + constant(mean) if mean != 0 else z


def gaussian(space: ZSpace, label: str, variance: Number, family: Sequence[tuple[ZVar, Number]]) -> ZVar:
    """Return a centred Gaussian with these covariances to a family of sources; their linear combination if it is one.

    So the sources of a family are linearly independent, and no covariance matrix is degenerate later on.
    """
    chain = space.chain
    if chain.is_zero(variance):
        return ZVar({})
    weights = _regression(space, variance, family)
    if weights is not None:
        total = ZVar({})
        for (z, _), w in zip(family, weights, strict=True):
            total = total + z.scaled(w)
        return total
    return space.source(label, variance=variance,
                        covariances={_source(z): c for z, c in family if z.terms})


def _source(z: ZVar) -> int:
    ((m, _),) = z.terms.items()
    return m[0][0]


@limit(MatMul)
def _matmul(self: Limits, line: MatMul):
    matrix, x = self.env[line.matrix], self.env[line.vector]
    side = int(line.transposed)
    for use in matrix.uses[side]:
        if use.argument == x:
            return self.step(line, "again", use.result)
    gain = matrix.gains[side]
    hat = _hat(self, line, matrix, x, gain)
    dots, total = [], ZVar({})
    for use, coefficient in _dots(self, line, matrix.uses[1 - side], x):
        # the dot of W x takes sigma^2, that of W^T y takes sigma^2 rho: the gain of the opposite hats over theirs
        weight = mul(coefficient, gain)
        if not self.chain.is_zero(weight):
            dots.append((weight, use.name, use.vector))
            total = total + use.argument.scaled(weight)
    result = hat + total
    matrix.uses[side].append(Use(line.out, line.vector, x, hat, result))
    return self.step(line, "MatMul", result, hat=hat, dots=tuple(dots))


@limit(Nonlin)
def _nonlin(self: Limits, line: Nonlin):
    args = [self.env[a] for a in line.args]
    return self.step(line, "Nonlin", _applied(self, line, line.fn, args))


def _applied(self: Limits, line: Nonlin, fn, args: Sequence[ZVar]) -> ZVar:
    if isinstance(fn, Poly):
        total = ZVar({})
        for coef, powers in fn.terms:
            term = constant(canonical(coef.number))
            for z, p in zip(args, powers, strict=True):
                for _ in range(p):
                    term = term * z
            total = total + term
        return _named(self, total)
    if isinstance(fn, Diff):
        k = fn.fn.arity
        moved = [x + d for x, d in zip(args[:k], args[k:], strict=True)]
        before, after = (self.space.apply(fn.fn, tuple(z), spell(line)) for z in (args[:k], moved))
        return after + before.scaled(Fraction(-1))
    return self.space.apply(fn, tuple(args), spell(line))


def _named(self: Limits, z: ZVar) -> ZVar:
    def short(c: Number) -> Number:
        return c if isinstance(c, Fraction) else self.chain.name(c.expand() if c.count_ops() < 60 else c)

    return ZVar({m: short(c) for m, c in z.terms.items()})


@limit(Moment)
def _moment(self: Limits, line: Moment):
    if not line.mean:
        found = self.sums.of(line)
        return found if isinstance(found, Unknown) else self.step(line, "CLT", found)
    head = constant(Fraction(1))
    for a in line.args[:-1]:
        head = head * self.env[a]
    return self.step(line, "Moment", constant(self.space.inner(head, self.env[line.args[-1]])))


@limit(Outer)
def _outer(self: Limits, line: Outer):
    raise NotCoveredError(spell(line), line.out, "updates are written out before", "scalarize the program first")


# ------------------------------------------------------------------------------------------- hats and dots


def _hat(self: Limits, line: MatMul, matrix: Matrix, x: ZVar, gain: Number) -> ZVar:
    before = _born(matrix.uses[int(line.transposed)])
    family = [(use.hat, mul(gain, self.space.inner(use.argument, x))) for use in before]
    return gaussian(self.space, line.out, mul(gain, self.space.inner(x, x)), family)


def _is_source(z: ZVar) -> bool:
    if len(z.terms) != 1:
        return False
    ((m, c),) = z.terms.items()
    return c == 1 and len(m) == 1 and m[0][1] == 1


def _born(uses: Sequence[Use]) -> list[Use]:
    """Return the uses whose hat is a source of its own, not a combination of earlier ones, nor one of them again."""
    found: dict[int, Use] = {}
    for use in uses:
        if _is_source(use.hat):
            found.setdefault(_source(use.hat), use)
    return list(found.values())


def _dots(self: Limits, line: MatMul, uses: Sequence[Use], x: ZVar) -> list[tuple[Use, Number]]:
    """Return E[dZ^x / dZhat_j] for the earlier uses of the opposite side."""
    support = self.space.support(x)
    born = _born(uses)
    if not any(_source(use.hat) in support for use in born):
        return []
    try:
        return [(use, self.space.expect(self.space.derivative(x, _source(use.hat)))) for use in born
                if _source(use.hat) in support]
    except Jump:
        return _stein(self, line, born, x)


def _stein(self: Limits, line: MatMul, born: Sequence[Use], x: ZVar) -> list[tuple[Use, Number]]:
    """Return the same by Stein's lemma, which needs no derivative: the solution c of Lambda c = E[Z^x Zhat]."""
    space = self.space
    table = [[space.covariance(_source(u.hat), _source(w.hat)) for w in born] for u in born]
    right = [space.inner(x, u.hat) for u in born]
    solved = _solve(space.chain, table, right)
    if solved is None:
        raise NotCoveredError(spell(line), line.vector, "its dot is not defined, not even by Stein's lemma",
                              "use a continuous function")
    return list(zip(born, solved, strict=True))


def _regression(space: ZSpace, variance: Number, family: Sequence[tuple[ZVar, Number]]) -> list[Number] | None:
    """Return the weights with which a Gaussian is a linear combination of a family, None if it is not one."""
    chain = space.chain
    live = [(z, c) for z, c in family if z.terms]
    if not live or len(live) < len(family) or any(chain.is_free(c) for _, c in live) or chain.is_free(variance):
        return None
    table = [[space.covariance(_source(z), _source(w)) for w, _ in live] for z, _ in live]
    if any(chain.is_free(c) for row in table for c in row):
        return None
    if not _suspect(chain, table, [c for _, c in live], variance):
        return None
    weights = _solve(chain, table, [c for _, c in live])
    if weights is None:
        return None
    rest = variance
    for w, (_, c) in zip(weights, live, strict=True):
        rest = add(rest, mul(Fraction(-1), mul(w, c)))
    return weights if chain.is_zero(rest) else None


def _suspect(chain: Chain, table, right, variance) -> bool:
    """Return whether, in floating point, the residual variance of a regression is nearly zero."""
    import numpy as np

    a = np.array([[float(chain.value(c)) for c in row] for row in table])
    b, v = np.array([float(chain.value(c)) for c in right]), float(chain.value(variance))
    rest = v - b @ np.linalg.lstsq(a, b, rcond=None)[0]
    return bool(abs(rest) < 1e-6 * v)


def _solve(chain: Chain, table: Sequence[Sequence[Number]], right: Sequence[Number]) -> list[Number] | None:
    """Solve a linear system exactly; None if it is singular.

    >>> _solve(Chain(), [[Fraction(2), Fraction(1)], [Fraction(1), Fraction(1)]], [Fraction(3), Fraction(2)])
    [Fraction(1, 1), Fraction(1, 1)]
    """
    k = len(right)
    rows = [[*row, b] for row, b in zip(table, right, strict=True)]
    for i in range(k):
        pivot = next((j for j in range(i, k) if not chain.is_zero(rows[j][i])), None)
        if pivot is None:
            return None
        rows[i], rows[pivot] = rows[pivot], rows[i]
        scale = _inverse(rows[i][i])
        rows[i] = [mul(x, scale) for x in rows[i]]
        for j in range(k):
            if j != i and not chain.is_zero(rows[j][i]):
                factor = mul(rows[j][i], Fraction(-1))
                rows[j] = [chain.name(add(x, mul(factor, y))) for x, y in zip(rows[j], rows[i], strict=True)]
    return [row[k] for row in rows]


__all__ = ["Limits", "Step"]
