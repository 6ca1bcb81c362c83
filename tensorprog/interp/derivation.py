r"""A limit's derivation in the notation of the papers: which Gaussian was born at which line with which law, and
which dot comes from which earlier use of the transpose.

Source: yang2020matrix, yang2021feature (Z-variables, ``\hat Z`` and ``\dot Z``).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tensorprog.exponents.scale import Scale
from tensorprog.gauss.chain import Number
from tensorprog.interp.limit import Limits, Matrix, Step, Use
from tensorprog.interp.notation import FORMATS, PRODUCT, Writer
from tensorprog.interp.zspace import ZSpace, ZVar
from tensorprog.program.instructions import Constant, Input, MatMul, MatrixType, Moment, Nonlin, VectorType

#: Definitions are padded to a common width up to this one.
_HEAD = 30
#: A Z-variable is written out in its Gaussians if that takes no more than this.
_SHORT = 60


def derivation(limits: Limits, name: str, format: str = "text") -> list[str]:
    r"""Return the derivation of a variable of the normal form, a string a row.

    Every line of the program that the variable needs has a row, its definition and what it tends to, with more rows
    for the law of the Gaussian born there and for its dots; named quantities and expectations without closed form
    are explained at the end. Rows of "latex" fit into an ``aligned`` block behind ``&``.

    Args:
        limits: the limits of a program.
        name: a variable of ``limits.program``.
        format: "text" or "latex".

    Example:
        >>> from tensorprog.program.text import parse
        >>> limits = Limits(parse("dim n\nmatrix W : n x n\nvector x : n\ny = W.T @ relu(W @ x)\ns = mean(x * y)"))
        >>> print("\n".join(derivation(limits, "s")))
        W : n x n         entries N(0, 1/n)
        x                 Z^x ~ N(0, 1)
        Wx                Z^{Wx} = Ẑ^{Wx} ~ N(0, 1), variance E[(Z^x)^2]
        y = Wᵀ relu(Wx)   Z^y = Ẑ^y + Ż^y
                          Ẑ^y ~ N(0, 1/2), variance E[relu(Z^{Wx})^2]
                          Ż^y = E[∂relu(Z^{Wx})/∂Ẑ^{Wx}] Z^x = 1/2 Z^x, from the earlier Wx
        s = mean(x*y)     s° = E[Z^x Z^y] = 1/2

    Source: yang2020matrix, yang2021feature.
    """
    teller = Teller(limits, Writer(limits, format))
    needed = _needed(limits, name)
    steps = {step.name: step for step in limits.steps}
    rows: list[tuple[str, list[str]]] = []
    for line in limits.program.lines:
        if line.out in needed and (line.out == name or teller.has_a_row(line)):
            told = teller.told(steps[line.out]) if line.out in steps else teller.without_a_step(line)
            rows.append((teller.w.definition(line.out), told))
    return [*_laid_out(rows, teller.w.latex), *teller.words()]


def _needed(limits: Limits, name: str) -> set[str]:
    """Return the lines that a variable depends on, those of earlier products that its dots come from among them."""
    needed = {name}
    for step in reversed(limits.steps):
        if step.name in needed:
            line = limits.program.line_of(step.name)
            needed.update(line.args)
            needed.update(use for _, use, _ in step.dots)
            if step.rule == "again":
                needed.add(_same(limits, step).name)
            needed.update(limits.space.atoms[a].label for a in limits.space.support(step.result)
                          if limits.space.atoms[a].label in limits.env)
    return needed


def _laid_out(rows: Sequence[tuple[str, list[str]]], latex: bool) -> list[str]:
    if latex:
        return [f"{head if not i else ''} && {text}" for head, told in rows for i, text in enumerate(told)]
    width = max((len(head) for head, _ in rows if len(head) <= _HEAD), default=0)
    out = []
    for head, told in rows:
        if len(head) > _HEAD:
            out.append(head)
        out += [f"{head if not i and len(head) <= _HEAD else '':{width}}   {text}" for i, text in enumerate(told)]
    return out


def _same(limits: Limits, step: Step) -> Use:
    """Return the earlier use of a matrix whose result a product has again."""
    line: Any = limits.program.line_of(step.name)
    uses = limits.env[line.matrix].uses[int(line.transposed)]
    return next(use for use in uses if use.result == step.result)


class Teller:
    """Says what happens at the lines of a program, in a writer's notation."""

    def __init__(self, limits: Limits, writer: Writer):
        self.limits, self.w = limits, writer
        self.space: ZSpace = limits.space
        self.order = {line.out: i for i, line in enumerate(limits.program.lines)}

    def has_a_row(self, line: Any) -> bool:
        """Return whether a line is told, not only written out where it is used."""
        if isinstance(line, Input):
            if isinstance(line.type, MatrixType):
                return True
            given = self.limits.form.source.source
            return not isinstance(line.law, Constant) or line.out in given
        if isinstance(line, Moment) and not line.mean:
            return False  # told where the sum stands in the program
        return isinstance(line, MatMul) or self._summed(line) is not None or not self.w.nameless(line.out)

    def _summed(self, line: Any) -> Any:
        """Return the Gaussian sum of the normal form that a sum or mean of the program became."""
        known = line.out in self.w.given and isinstance(self.w.given.line_of(line.out), Moment)
        if not known or not line.args:  # a sum that is exactly zero has become a constant
            return None
        inner: Any = self.limits.program.line_of(line.args[0])
        return inner if isinstance(line, Nonlin) and isinstance(inner, Moment) and not inner.mean else None

    def without_a_step(self, line: Any) -> list[str]:
        """Return the law of a matrix's entries, or that the limit of a line is not known."""
        if not isinstance(line, Input):
            e = self.limits.exponent(line.out)
            return [self.words_of("tends to 0, and its leading order is not known" if e and e < 0 else "not known")]
        given: Any = self.w.given.line_of(line.out)
        law = given.law
        shown = self.w.marks.normal.format(self.w.scale(law.mean), self._variance(law.variance))
        return [self.words_of("entries ") + shown]

    def _variance(self, variance: Scale) -> str:
        plain = self.w.plain.scale(variance)
        if not self.w.latex and plain.count("^") == 1 and plain.endswith("^-1"):
            number, _, dim = plain.removesuffix("^-1").rpartition("*")
            return f"{number or 1}/{dim}"
        return self.w.scale(variance)

    def told(self, step: Step) -> list[str]:
        """Return what happens at a line, a string a row."""
        line: Any = self.limits.program.line_of(step.name)
        summed = self._summed(line)
        if summed is not None:
            return self._sum(step, summed)
        rows = {"input": self._input, "MatMul": self._product, "again": self._again}.get(
            step.rule, self._value)(step, line)
        return [rows[0] + self._size(step.name), *rows[1:]]

    def _power(self, e: Fraction) -> str:
        if self.w.latex:
            return "n" if e == 1 else rf"n^{{{e}}}"
        return "n" if e == 1 else f"n^{e}" if e.denominator == 1 and e > 0 else f"n^({e})"

    def _size(self, name: str) -> str:
        e = self.limits.exponent(name)
        if not e:
            return ""
        if self.w.latex:
            return rf"\quad \left({self.w.label(name)} \text{{ is }} {self._power(e)} \text{{ times this}}\right)"
        return f"   ({self.w.label(name)} is {self._power(e)} times this)"

    def words_of(self, text: str) -> str:
        """Return words inside a formula."""
        return self.w.marks.words.format(text)

    def _zed(self, name: str) -> str:
        return self.w.on(self.w.marks.z, name)

    def _law(self, symbol: str, mean: Number, variance: Number) -> str:
        m = self.w.marks
        return symbol + m.follows + m.normal.format(self.w.brief(mean), self.w.brief(variance))

    # ------------------------------------------------------------------------------------------------ rules

    def _input(self, step: Step, line: Input) -> list[str]:
        sources = sorted(self.space.support(step.result))
        if len(sources) != 1 or self.space.atoms[sources[0]].label != step.name:
            return [f"{self._zed(step.name)} = {self.w.z(step.result)}"]
        (i,) = sources
        symbol = self.w.source(step.name)
        law = self._law(symbol, self.space.atoms[i].mean, self.space.covariance(i, i))
        rows = [law] if symbol == self._zed(step.name) else [f"{self._zed(step.name)} = {self.w.z(step.result)}", law]
        return rows + [self._covariance(i, j, "") for j in range(i) if self._kin(i, j)]

    def _value(self, step: Step, line: Any) -> list[str]:
        w, number = self.w, step.result.number
        vector = isinstance(self.limits.program.type_of(step.name), VectorType)
        left = self._zed(step.name) if vector else w.marks.limit.format(w.label(step.name))
        inside = "" if isinstance(line, Input) else w.inside(step.name)[0]
        parts = [left] if vector or not w.nameless(step.name) else []
        if number is not None:
            return [w.equals(*parts, inside, value=number)]
        full = w.z(step.result) if not inside or len(w.plain.z(step.result)) <= _SHORT else ""
        return [" = ".join(dict.fromkeys(p for p in (*parts, inside, full) if p))]

    def _sum(self, step: Step, line: Moment) -> list[str]:
        w, number, e = self.w, step.result.number, self.limits.exponent(step.name)
        symbol = self.limits.scalar(line.out)
        if number is None or (symbol, symbol) not in self.limits.randoms:
            return [self.words_of("vanishes in the limit")]
        law = self._law(w.number(symbol), Fraction(0), self.limits.randoms[symbol, symbol])
        squares = " ".join(w.expectation([a, a]) for a in line.args)
        size = (self._power(e) + (r" \, " if w.latex else " ")) if e else ""
        rows = [f"{w.marks.about.lstrip()}{size}{w.number(number)}, {law}" + self.words_of(", variance ") + squares +
                self.words_of(", by the central limit theorem")]
        for (s, t), c in self.limits.randoms.items():
            if t == symbol and s != t and c is not None:
                rows.append(w.equals(w.marks.cov.format(w.number(s), w.number(t)), value=c))
        return rows

    def _again(self, step: Step, line: MatMul) -> list[str]:
        use = _same(self.limits, step)
        return [f"{self._zed(step.name)} = {self._zed(use.name)}" + self.words_of(", the same product as ") +
                self.w.definition(use.name)]

    # --------------------------------------------------------------------------------------------- products

    def _product(self, step: Step, line: MatMul) -> list[str]:
        assert step.hat is not None
        m, zed = self.w.marks, self._zed(step.name)
        hat, dot = self.w.on(m.hat, step.name), self.w.on(m.dot, step.name)
        rows = self._born(step, line, hat)
        if not step.dots:
            head = f"{zed} = {rows[0]}" if rows[0].startswith(hat) else f"{zed} = {hat}; {rows[0]}"
            return [head, *rows[1:], *self._no_dot(step, line, dot)]
        return [f"{zed} = {hat} + {dot}", *rows, *self._dots(step, line, dot)]

    def _gain(self, line: MatMul) -> Number:
        matrix: Matrix = self.limits.env[line.matrix]
        return matrix.gains[int(line.transposed)]

    def _times_gain(self, line: MatMul, factor: str) -> str:
        gain = self._gain(line)
        return factor if gain == 1 else self.w.coefficient(gain, factor)

    def _born(self, step: Step, line: MatMul, hat: str) -> list[str]:
        z, w = step.hat, self.w
        assert z is not None
        if not z.terms:
            return [f"{hat} = 0"]
        sources = sorted(self.space.support(z))
        if len(sources) > 1 or self.space.atoms[sources[0]].label != step.name:
            return [f"{hat} = {w.z(z)}" + self.words_of(", since the vector is a combination of earlier ones")]
        (i,) = sources
        variance = self._times_gain(line, w.expectation([line.vector, line.vector]))
        rows = [self._law(hat, Fraction(0), self.space.covariance(i, i)) + self.words_of(", variance ") + variance]
        for j in range(i):
            if self._kin(i, j):
                vector = next((u.vector for u in self.limits.env[line.matrix].uses[int(line.transposed)]
                               if u.name == self.space.atoms[j].label), None)
                formula = "" if vector is None else self._times_gain(line, w.expectation([line.vector, vector]))
                rows.append(self._covariance(i, j, formula))
        return rows

    def _kin(self, i: int, j: int) -> bool:
        return self.space.atoms[j].fn is None and self.space.covariance(i, j) != 0

    def _covariance(self, i: int, j: int, formula: str) -> str:
        pair = (self.w.source(self.space.atoms[k].label) for k in (i, j))
        return self.w.equals(self.w.marks.cov.format(*pair), formula, value=self.space.covariance(i, j))

    def _slope(self, line: MatMul, use: str) -> str:
        """Return sigma^2 E[dZ^x/dZhat] for the vector x of a product and an earlier use of the transpose."""
        x, tight = self.w.zed(line.vector)
        x = x if tight > PRODUCT else self.w.marks.round.format(x)
        m = self.w.marks
        return self._times_gain(line, m.expect.format(m.partial.format(x, self.w.on(m.hat, use))))

    def _dots(self, step: Step, line: MatMul, dot: str) -> list[str]:
        w, by_stein = self.w, self._jumps(self.limits.z(line.vector))
        why = self.words_of(" (by Stein's lemma)") if by_stein else ""
        parts = []
        for weight, use, vector in step.dots:
            z, tight = w.zed(vector)
            z = z if tight >= PRODUCT else w.marks.round.format(z)
            parts.append((self._slope(line, use), weight, z, use))
        if len(parts) == 1:
            slope, weight, z, use = parts[0]
            last = w.coefficient(weight, z)
            sign = w.marks.about if w.opaque(weight) else " = "
            return [f"{dot} = {slope} {z}{sign}{last}" +
                    self.words_of(", from the earlier ") + w.definition(use) + why]
        total = w.total([(w.coefficient(weight, z), PRODUCT) for _, weight, z, _ in parts])[0]
        return [f"{dot} = {total}"] + [
            w.equals(slope, value=weight) + self.words_of(", from the earlier ") + w.definition(use) + why
            for slope, weight, _, use in parts]

    def _no_dot(self, step: Step, line: MatMul, dot: str) -> list[str]:
        """Say why a product with a matrix whose transpose was used before has no dot."""
        earlier = [u for u in self.limits.env[line.matrix].uses[1 - int(line.transposed)]
                   if self.order[u.name] < self.order[step.name]]
        if not earlier:
            return []
        use = earlier[-1]
        if self.w.nameless(use.name) and len(self.w.plain.definition(use.name)) > _SHORT:
            return []
        return [f"{dot} = 0" + self.words_of(", as ") + f"{self._slope(line, use.name)} = 0" +
                self.words_of(" for the earlier ") + self.w.definition(use.name)]

    def _jumps(self, z: ZVar) -> bool:
        atoms = (self.space.atoms[a] for m in z.terms for a, _ in m)
        return any(bool(getattr(a.fn, "jumps", ())) or any(map(self._jumps, a.args)) for a in atoms if a.fn is not None)

    # ------------------------------------------------------------------------------------------------ words

    def words(self) -> list[str]:
        """Return the definitions of the named quantities that were mentioned."""
        head = r"\text{where} && " if self.w.latex else "where "
        rows = []
        for x in list(self.w.mentioned):
            formula, digits = self.limits.chain.definitions[x], self.w.digits(x)
            if not self.w.written(x):
                told = self.words_of(f" (a formula of {formula.count_ops()} operations)")
                rows.append(f"{head}{self.w.number(x)}{self.w.marks.about}{digits}{told}")
            else:
                about = self.w.marks.about if digits else ""
                rows.append(f"{head}{self.w.number(x)} = {self.w.number(formula)}{about}{digits}")
        return rows


__all__ = ["FORMATS", "Writer", "derivation"]
