"""program.limit: the infinite-width limit of a variable, exact where it can be, to a stated error where not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from tensorprog.errors import NoClosedFormError, NotCoveredError, ProgramError
from tensorprog.exponents.affine import Values
from tensorprog.finite.converge import converge
from tensorprog.finite.draws import Draws
from tensorprog.finite.gaussian import check_gaussian
from tensorprog.finite.population import sample
from tensorprog.gauss.chain import Number, add, exact, integrals, mul
from tensorprog.gauss.quadrature import within
from tensorprog.interp.covered import Covered
from tensorprog.interp.derivation import FORMATS, Writer, derivation
from tensorprog.interp.limit import Limits, Unknown
from tensorprog.interp.normal import NormalForm
from tensorprog.program.instructions import Data, Input, MatrixType, Moment, VectorType
from tensorprog.program.needed import needed
from tensorprog.program.program import Program, spell

METHODS = ("auto", "exact", "sampled")
#: Formulas of up to this many operations are written out without named quantities.
_WRITTEN_OUT = 400


@dataclass(frozen=True)
class Limit:
    """The limit of one variable v = n^exponent * v'.

    Args:
        name: the variable.
        value: of a scalar its limit, 0 if exponent < 0; of a vector E Z, the average of a coordinate of v'.
        error: half a 95% interval, or a bound; 0 for a closed form (up to rounding).
        method: "exact" (closed form), "quadrature", "sampled".
        exact: the closed form as a sympy expression; of a vector Z as an expression in its Gaussian sources;
            None if there is none.
        expression: like ``exact``, expectations without a closed form left as E[...]; None if sampled.
        exponent: e; ``leading``: the limit of v' = v / n^e, an expression or a float.
        variance: of a vector the variance of Z; of a scalar that stays random (Gaussian) its variance; else 0.
        definitions: the named quantities in ``expression``.

    Example:
        >>> from tensorprog.program.text import parse
        >>> p = parse("dim n\\nmatrix W : n x n\\nvector x : n\\ny = W.T @ relu(W @ x)\\ns = mean(x * y)")
        >>> s = p.limit("s")
        >>> s.exact, s.value, s.error, s.method
        (1/2, 0.5, 0.0, 'exact')
        >>> print(p.limit("y").exact)
        Z^x/2 + Ẑ^y
    """

    name: str
    value: float
    error: float
    method: str
    exact: Any = None
    expression: Any = None
    exponent: Fraction = Fraction(0)
    leading: Any = None
    variance: float = 0.0
    kind: str = "scalar"
    definitions: Mapping[Any, Any] = field(default_factory=dict)
    limits: Limits | None = field(default=None, repr=False, compare=False)
    variable: str = field(default="", repr=False)

    def derivation(self, format: str = "text") -> list[str]:
        """Return the derivation, a string a line; of a sampled limit, what was sampled."""
        if format not in FORMATS:
            raise ProgramError(f"limit of {self.name}", format, "no such format", "use one of: " + ", ".join(FORMATS))
        if self.limits is None:
            told = f"from a population, {self.value:.6g} +- {self.error:.2g}"
            return [rf"\text{{{told}}}" if format == "latex" else f"{self.name}: {told}"]
        if self.variable not in self.limits.program:
            return [f"{self.name} = {self.value}"]
        return derivation(self.limits, self.variable, format)

    def explain(self, format: str = "text") -> str:
        """Return the derivation line by line: the Gaussians born, the dots, and where they come from."""
        lines = self.derivation(format)
        if format == "text":
            return "\n".join([*lines, f"limit: {self}"])
        return "\\begin{aligned}\n" + " \\\\\n".join("& " + line for line in lines) + "\n\\end{aligned}"

    def covariance(self, other: Limit) -> Any:
        """Return the covariance of two scalars that stay random, an exact number: outputs are a Gaussian process.

        Both must come from one call, as in ``limit(program, ["f", "g"])``.

        Example:
            >>> from tensorprog.program.text import parse
            >>> p = parse('''
            ... dim n
            ... matrix W : n x n
            ... vector x, y : n ~ N(0, [[1, 1/2], [1/2, 1]])
            ... vector v : n
            ... f = sum(v * relu(W @ x))/n^(1/2)
            ... g = sum(v * relu(W @ y))/n^(1/2)''')
            >>> f, g = limit(p, ["f", "g"]).values()
            >>> f.covariance(g), f.covariance(f)
            (sqrt(3)/(4*pi) + 1/6, 1/2)
        """
        if self.limits is None or other.limits is not self.limits:
            raise ProgramError(f"covariance of {self.name} and {other.name}", other.name, "they come from two calls",
                               f"limit(program, [{self.name!r}, {other.name!r}])")
        x, y = (self.limits.scalar(z.variable) if z.variable else Fraction(0) for z in (self, other))
        return written_out(self.limits.chain, exact(self.limits.sums.covariance(x, y)))

    def to_json(self) -> dict:
        """Return plain data: the closed form as a string or null, the value, the error, the method."""
        found = {"exact": None if self.exact is None else str(self.exact), "value": self.value, "error": self.error,
                 "method": self.method, "exponent": str(self.exponent), "variance": self.variance}
        if self.definitions and self.exact is not None:
            found["where"] = {str(s): str(f) for s, f in self.definitions.items()}
        return found

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        shown = f"{self.value:.12g}"
        scale = f" (over n^({self.exponent}))" if self.exponent else ""
        if self.exponent < 0 and self.kind != "vector":
            law = f"N({shown}, {self.variance:.6g})" if self.kind == "gaussian" else self.leading
            leading = "" if self.leading is None else f" * {law}"
            return f"{self.name} -> 0, like n^({self.exponent}){leading}"
        if self.kind == "vector":
            law = "sampled" if self.limits is None else f"Z = {Writer(self.limits).z(self.limits.z(self.variable))}"
            return f"{self.name}{scale}: {law}, mean {shown}, variance {self.variance:.6g}"
        if self.kind == "gaussian":
            return f"{self.name}{scale} -> N({shown}, {self.variance:.12g})"
        if self.exact is not None:
            return f"{self.name} -> {self.exact}" + ("" if shown in (str(self.exact), "nan") else f" = {shown}")
        return f"{self.name} -> {shown} ± {self.error:.1g} ({self.method})"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.explain('latex')}$"


def limit(program: Program, name: str | Sequence[str] | None = None, *, method: str = "auto",
          values: Values | None = None, data: Mapping[str, Sequence] | None = None,
          ratios: Mapping[str, Any] | None = None, tol: float = 1e-3, seed: int = 0, budget: float = 20.0,
          strict: bool = True) -> Any:
    """Return the infinite-width limit of a variable, or of all outputs.

    Closed forms first, quadrature for expectations that have none, a sampled population for what is too long: the
    method and the error stand in the result.

    Args:
        name: a vector or scalar; a sequence of them, or None for all outputs: as a dict.
        method: "auto", "exact" (closed forms and quadrature, or NoClosedFormError), "sampled".
        values: the unknown exponents.
        data: coordinates of generic data; by default those of data seed 0, which runs use too.
        ratios: sympy symbols (or numbers) for the factors of dimensions.
        tol: the error asked of a sampled limit.
        seed: of the samples.
        budget: seconds, for the exact and for the sampled part each.
        strict: refuse variables that grow; False: give what they tend to after division by n^exponent.

    Returns:
        ``Limit``; for a vector along a fixed axis of more than one coordinate a tuple of them.

    Raises:
        NotCoveredError: the theory does not cover the program; ProgramError: no such variable.

    Example:
        >>> from tensorprog.program.text import parse
        >>> p = parse("dim n\\nmatrix W : n x n\\nvector x : n\\nh = W @ x\\nq = mean(tanh(h)**2)\\noutput q")
        >>> q = limit(p)["q"]
        >>> q.exact, round(q.value, 10), q.method
        (None, 0.3942944904, 'quadrature')

    Source: yang2020matrix (Master Theorem), yang2021feature.
    """
    if method not in METHODS:
        raise ProgramError("limit", method, "no such method", "use one of: " + ", ".join(METHODS))
    asked = [name] if isinstance(name, str) else list(program.outputs if name is None else name)
    if not asked:
        raise ProgramError("limit", "no outputs", "the program has no outputs", "name a variable, or add: output s")
    for x in asked:
        if isinstance(program.type_of(x), MatrixType):
            raise ProgramError(spell(program.line_of(x)), x, "a matrix has no limit of its own",
                               "ask for a product with it, or for mean(trace(...))")
    try:
        found = _found(program, asked, method, values, data, ratios, tol, seed, budget, strict)
    except NotCoveredError as error:
        raise type(error)(written_in(program, error.line), error.value, error.reason, error.fix) from None
    return found[asked[0]] if isinstance(name, str) else found


def written_in(program: Program, line: str) -> str:
    r"""Return a line with the nameless variables in it written out.

    Example:
        >>> from tensorprog.program.text import parse
        >>> written_in(parse("dim n\nvector x : n\ny = exp(1 + x*x)"), "y = exp(_1)")
        'y = exp(1 + x^2)'
    """
    def meant(match: re.Match) -> str:
        found = program.line_of(match[0]) if match[0] in program else None
        return match[0] if found is None or isinstance(found, Input) else written_in(
            program, spell(found).partition(" = ")[2])

    head, equals, tail = line.rpartition(" = ")
    return head + equals + re.sub(r"\b_\d+\b", meant, tail)


def _found(program, asked, method, values, data, ratios, tol, seed, budget, strict) -> dict[str, Any]:
    known = _data(program, data)
    program = needed(program, asked)
    limits, form, why = None, None, None
    if method != "sampled":
        try:
            limits = Limits(program, values, data=known, ratios=ratios, budget=budget)
            form = limits.form
        except NoClosedFormError as error:
            if method == "exact":
                raise
            why = error
    if form is None:
        if ratios:
            raise why or ProgramError("limit", "sampled", "a population needs numbers", "leave ratios out")
        form = NormalForm(program, values, data=known)
        Covered(form.program)
    return {x: _limit(program, x, form, limits, method, tol, seed, budget, strict) for x in asked}


def confirm_limit(program: Program, name: str, *, limit_options: Mapping[str, Any] | None = None, **options):
    r"""Return the ``Convergence`` of a scalar's values at finite width to its limit.

    A scalar that stays random, a Gaussian output, gives a ``GaussianCheck`` of its distribution instead.

    Args:
        limit_options: for ``limit``; ``options``: for ``converge`` (widths, seeds, budget, values, progress, ...).

    Example:
        >>> from tensorprog.program.text import parse
        >>> p = parse("dim n\nmatrix W : n x n\nvector x : n\ns = mean(x * (W.T @ relu(W @ x)))")
        >>> confirm_limit(p, "s", budget=5).verdict.name
        'CONFIRMED'
    """
    found = limit(program, name, **{"values": options.get("values"), **(limit_options or {})})
    if isinstance(found, tuple) or found.kind == "vector":
        raise ProgramError(f"confirm {name}", name, "it is a vector, and a number is confirmed",
                           f"confirm an average, such as mean({name} * {name})")
    if found.kind == "gaussian":
        return check_gaussian(needed(program, [name]), name, found.value, found.variance, **options)
    return converge(needed(program, [name]), name, found, **options)


def _data(program: Program, data) -> dict[str, list[Fraction]]:
    """Return the coordinates of generic data: those given, else what runs draw."""
    draws, found = Draws(1, 0), {}
    for line in program.lines:
        if isinstance(line, Input) and isinstance(line.law, Data) and line.law.values is None:
            shape = (int(line.type.dim.factor),) if isinstance(line.type, VectorType) else ()
            found[line.out] = [Fraction(float(x)) for x in draws.data(line.out, shape).reshape(-1)]
    for name, xs in (data or {}).items():
        program.type_of(name)
        found[name] = [Fraction(x) for x in xs]
    return found


def _limit(program, name, form, limits, method, tol, seed, budget, strict):
    became = form.source.of[name]
    if isinstance(became, tuple):
        parts = tuple(_one(f"{name}[{i}]", x, form, limits, method, tol, seed, budget, strict)
                      for i, x in enumerate(became))
        return parts if len(parts) != 1 else replace(parts[0], name=name)
    return _one(name, became, form, limits, method, tol, seed, budget, strict)


def _one(name, variable, form, limits, method, tol, seed, budget, strict) -> Limit:
    if not isinstance(variable, str):
        number = exact(variable)
        return Limit(name, float(variable), 0.0, "exact", number, number, leading=number, limits=limits)
    e = form.exponents.get(variable, Fraction(0))
    e = Fraction(0) if e is None else e
    line = form.source.program.line_of(variable)
    if e > 0 and limits is not None and variable in limits.env and _vanishes(limits, variable):
        raise NotCoveredError(spell(line), f"n^({e})", "its leading term vanishes, and the theorem says nothing of the "
                              "next one", "write the line so that the cancellation does not occur")
    if e > 0 and strict:
        raise NotCoveredError(spell(line), f"n^({e})", f"{name} grows like n^({e}), so it has no limit",
                              f"divide it by n^({e}), or limit(..., strict=False)")
    if limits is not None:
        try:
            with within(budget):
                return _exact(name, variable, e, limits)
        except NoClosedFormError:  # what the theorem covers can be sampled
            if method == "exact":
                raise
    return _sampled(name, variable, e, form, tol, seed, budget)


def _sums_behind(program: Program, variable: str) -> str | None:
    """Return a sum at the scale of the central limit theorem that a variable of the normal form depends on."""
    behind = needed(program, [variable])
    return next((spell(x) for x in behind.lines if isinstance(x, Moment) and not x.mean), None)


def _vanishes(limits: Limits, variable: str) -> bool:
    number = None if isinstance(limits.env[variable], Unknown) else limits.z(variable).number
    return number is not None and limits.chain.is_zero(number)


def _sampled(name, variable, e, form, tol, seed, budget) -> Limit:
    if e < 0:  # whatever it is the leading term of
        nought = exact(Fraction(0))
        return Limit(name, 0.0, 0.0, "exact", nought, nought, e, variable=variable)
    random = _sums_behind(form.program, variable)
    if random is not None:
        raise NotCoveredError(spell(form.source.program.line_of(variable)), random,
                              "it is random in the limit, or not known: a sum whose mean vanishes is behind it",
                              "ask for the exact limit, or for the variance of that sum")
    estimate = sample(form.program, [variable], tol=tol, seed=seed, budget=budget, trusted=True)[variable]
    second = estimate.second
    vector = second is not None
    variance = max(0.0, second.value - estimate.value**2) if second is not None else 0.0
    return Limit(name, estimate.value, estimate.error, "sampled", exponent=e, leading=estimate.value,
                 variance=variance, kind="vector" if vector else "scalar", variable=variable)


def _exact(name: str, variable: str, e: Fraction, limits: Limits) -> Limit:
    """Return the limit from the chain; raises NoClosedFormError if its integrals are out of reach of quadrature."""
    if e < 0 and isinstance(limits.env[variable], Unknown):
        nought = exact(Fraction(0))
        return Limit(name, 0.0, 0.0, "exact", nought, nought, e, None, limits=limits, variable=variable)
    z, chain = limits.z(variable), limits.chain
    randoms = {s for s, _ in limits.randoms}
    vector = isinstance(limits.program.type_of(variable), VectorType)
    if vector and randoms and limits.space.depends_on_free(z):
        raise NotCoveredError(spell(limits.form.source.program.line_of(variable)), name,
                              "it is random in the limit, and not Gaussian: a Gaussian number is inside",
                              "ask for that number")
    if vector:
        mean, second = limits.space.expect(z), limits.space.inner(z, z)
        expression, variance = Writer(limits).expression(z), add(second, mul(Fraction(-1), mul(mean, mean)))
        needed = [mean, variance, expression]
        kind, number = "vector", mean
    else:
        number = limits.scalar(variable)
        if randoms & _free(chain, number):
            number = written_out(chain, exact(number))
        number, variance = limits.sums.moments(number, variable)
        expression, kind = exact(limits.scalar(variable)), "gaussian" if variance != 0 else "scalar"
        needed = [number, variance, expression]
    definitions = _definitions(chain, needed)
    if definitions and sum(f.count_ops() for f in definitions.values()) <= _WRITTEN_OUT and not vector:
        expression = written_out(chain, expression)
        definitions = _definitions(chain, [expression])
    nodes = _nodes([*needed, *_definitions(chain, needed).values()])
    if any(len(node.zs) > 3 for node in nodes):
        raise NoClosedFormError(spell(limits.form.source.program.line_of(variable)), name,
                                "it involves expectations over more than three Gaussians", "use method='sampled'")
    value, spread = (_float(chain, x) for x in (number, variance))
    error, method = (0.0, "exact") if not nodes else (_error(chain, nodes, value), "quadrature")
    closed = expression if not nodes else None
    if e < 0:
        value, error, closed = (value, error, closed) if vector else (0.0, 0.0, exact(Fraction(0)))
    return Limit(name, value, error, method, closed, expression, e, expression if not vector else value, spread, kind,
                 definitions, limits, variable)


def _float(chain, x: Number) -> float:
    return float("nan") if chain.is_free(x) else float(chain.value(x))


def _error(chain, nodes, value: float) -> float:
    """Return a bound on what the errors of all integrals add up to, for sensitivities of up to 10."""
    total = 1e-15 * max(1.0, abs(value))
    for node in nodes:
        known = {s: exact_float(chain.value(s)) for s in node.free_symbols}
        found = node.xreplace(known)  # constants may have come out of it
        for part in integrals(found):
            factor = abs(complex(found.xreplace({part: 1})))
            total += 10 * max(1.0, factor) * part.estimate().error
    return total


def exact_float(x):
    """Return an mpmath number as a sympy Float."""
    import sympy

    return sympy.Float(x, 17)


def _nodes(numbers) -> set:
    from tensorprog.gauss.expectation import Expect

    return set().union(*(x.atoms(Expect) for x in numbers if not isinstance(x, Fraction)))


def _definitions(chain, numbers) -> dict:
    """Return the named quantities that numbers are expressed in, in order of definition."""
    needed: set = set()
    stack = [x for x in numbers if not isinstance(x, Fraction)]
    while stack:
        for symbol in stack.pop().free_symbols:
            if symbol in chain.definitions and symbol not in needed:
                needed.add(symbol)
                stack.append(chain.definitions[symbol])
    return {s: f for s, f in chain.definitions.items() if s in needed}


def written_out(chain, expression):
    """Return an expression without named quantities."""
    while any(s in chain.definitions for s in expression.free_symbols):
        expression = expression.xreplace({s: chain.definitions[s] for s in expression.free_symbols
                                          if s in chain.definitions})
    return expression


def _free(chain, x: Number) -> set:
    """Return the symbols without a definition that a number depends on."""
    return set() if isinstance(x, Fraction) else set().union(*(
        _free(chain, chain.definitions[s]) if s in chain.definitions else {s} for s in x.free_symbols))


__all__ = ["Limit", "limit", "written_out"]
