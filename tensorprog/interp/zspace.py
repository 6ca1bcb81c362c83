"""Z-variables: random variables that are polynomials in Gaussian sources and functions of them, and their expectations.

A Z-variable is a polynomial with exact coefficients in *atoms*. An atom is a source (a coordinate of an initial vector,
or a hat: the fresh Gaussian part of a product with a random matrix) or a function of Z-variables. Atoms are numbered,
equal ones once, so a program of L layers needs O(L) atoms however deeply they nest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tensorprog.atoms.function import Function
from tensorprog.errors import NoClosedFormError, NotCoveredError
from tensorprog.gauss.chain import Chain, Number, add, canonical, exact, mul

Monomial = tuple[tuple[int, int], ...]  # (atom, power), by atom
UNIT: Monomial = ()

#: Products of Z-variables are multiplied out up to this many terms.
MAX_TERMS = 20_000


class Jump(Exception):
    """A derivative meets a function that jumps: Stein's lemma takes its place."""


class ZVar:
    """A polynomial in atoms: monomial -> coefficient, zero coefficients absent."""

    __slots__ = ("_key", "terms")

    def __init__(self, terms: Mapping[Monomial, Number]):
        self.terms = {m: c for m, c in terms.items() if c != 0}
        self._key: tuple | None = None

    @property
    def key(self) -> tuple:
        """What equal Z-variables share."""
        if self._key is None:
            self._key = tuple(sorted(self.terms.items(), key=lambda t: t[0]))
        return self._key

    @property
    def number(self) -> Number | None:
        """The number that it is, None if it is random."""
        if not self.terms:
            return Fraction(0)
        return self.terms[UNIT] if len(self.terms) == 1 and UNIT in self.terms else None

    @property
    def affine(self) -> bool:
        """Whether it has degree at most 1 in atoms."""
        return all(len(m) == 0 or (len(m) == 1 and m[0][1] == 1) for m in self.terms)

    def __eq__(self, other) -> bool:
        return isinstance(other, ZVar) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __add__(self, other: ZVar) -> ZVar:
        terms = dict(self.terms)
        for m, c in other.terms.items():
            terms[m] = add(terms[m], c) if m in terms else c
        return ZVar(terms)

    def scaled(self, number: Number) -> ZVar:
        """Return a multiple."""
        if number == 1:
            return self
        return ZVar({m: mul(c, number) for m, c in self.terms.items()} if number != 0 else {})

    def __mul__(self, other: ZVar) -> ZVar:
        if len(self.terms) * len(other.terms) > MAX_TERMS:
            raise NoClosedFormError("a product", f"{len(self.terms)} x {len(other.terms)} terms",
                                    "its exact form is too long", "take the sampled limit: method='sampled'")
        terms: dict[Monomial, Number] = {}
        for m, c in self.terms.items():
            for k, d in other.terms.items():
                both = join(m, k)
                product = mul(c, d)
                terms[both] = add(terms[both], product) if both in terms else product
        return ZVar(terms)


def join(m: Monomial, k: Monomial) -> Monomial:
    """Return the product of monomials.

    >>> join(((0, 1), (2, 1)), ((2, 2),))
    ((0, 1), (2, 3))
    """
    if not m or not k:
        return m or k
    powers = dict(m)
    for atom, p in k:
        powers[atom] = powers.get(atom, 0) + p
    return tuple(sorted(powers.items()))


def constant(number: Number) -> ZVar:
    """Return the Z-variable that is a number."""
    return ZVar({UNIT: number})


@dataclass(slots=True)
class Atom:
    """A Gaussian source (``fn`` is None), or ``fn(args)``.

    ``support``: the sources that it depends on; ``odd``: whether it changes its sign if all of them do, None: neither.
    """

    label: str
    fn: Function | None = None
    args: tuple[ZVar, ...] = ()
    mean: Number = Fraction(0)
    support: frozenset[int] = frozenset()
    odd: bool | None = None
    slopes: dict = field(default_factory=dict)


class ZSpace:
    """The sources with their joint law, the atoms, and expectations of polynomials in them.

    Args:
        chain: the named quantities that expectations are expressed in.

    Example:
        >>> from tensorprog.atoms.registry import nonlinearity
        >>> space = ZSpace(Chain())
        >>> g = space.source("g", variance=Fraction(1))
        >>> y = space.apply(nonlinearity("relu"), (g,)) + g.scaled(Fraction(1, 2))
        >>> space.expect(y * y)                                  # 1/2 + 1/2 + 1/4
        Fraction(5, 4)
    """

    def __init__(self, chain: Chain):
        self.chain = chain
        self.atoms: list[Atom] = []
        self.covariances: dict[tuple[int, int], Number] = {}
        self._applied: dict[tuple, ZVar] = {}
        self._expected: dict[Monomial, Number] = {}

    # -------------------------------------------------------------------------------------------- making

    def source(self, label: str, *, variance: Number, mean: Number = Fraction(0),
               covariances: Mapping[int, Number] | None = None) -> ZVar:
        """Return a new Gaussian source with its covariances to earlier ones."""
        i = len(self.atoms)
        self.atoms.append(Atom(label, mean=mean, support=frozenset((i,)), odd=True if mean == 0 else None))
        self.covariances[i, i] = variance
        for j, c in (covariances or {}).items():
            if c != 0:
                self.covariances[j, i] = c
        return ZVar({((i, 1),): Fraction(1)})

    def covariance(self, i: int, j: int) -> Number:
        """Return the covariance of two sources."""
        return self.covariances.get((min(i, j), max(i, j)), Fraction(0))

    def apply(self, fn: Function, args: tuple[ZVar, ...], line: str = "") -> ZVar:
        """Return ``fn(args)``.

        Raises:
            NotCoveredError: a number outside the domain, or at a jump.
        """
        numbers = [z.number for z in args]
        if all(x is not None for x in numbers):
            return constant(self._value(fn, numbers, line))
        polynomial = _polynomial(fn)
        if polynomial is not None:
            return self._compose(polynomial, args[0])
        key = (fn, args)
        if key not in self._applied and (split := self._split(fn, args, line)) is not None:
            self._applied[key] = split
        if key not in self._applied:
            support = frozenset().union(*(self.support(z) for z in args))
            self.atoms.append(Atom(getattr(fn, "name", "f"), fn, args, support=support, odd=self._parity(fn, args)))
            self._applied[key] = ZVar({((len(self.atoms) - 1, 1),): Fraction(1)})
        return self._applied[key]

    def support(self, z: ZVar) -> frozenset[int]:
        """Return the sources that a Z-variable depends on."""
        return frozenset().union(*(self.atoms[a].support for m in z.terms for a, _ in m))

    def _parity(self, fn, args: Sequence[ZVar]) -> bool | None:
        odds = {self.odd(m) for z in args for m in z.terms}
        if odds == {False}:
            return False
        parity = getattr(fn, "parity", None)
        return parity == "odd" if odds == {True} and parity is not None else None

    def odd(self, m: Monomial) -> bool | None:
        """Return whether a monomial changes its sign with all sources (True), does not (False), or neither (None)."""
        total = False
        for a, p in m:
            odd = self.atoms[a].odd
            if odd is None:
                return None
            total ^= odd and p % 2 == 1
        return total

    def _value(self, fn, numbers: Sequence[Number], line: str) -> Number:
        for jump in getattr(fn, "jumps", ()):
            if self.chain.is_zero(add(numbers[0], -Fraction(jump))):
                raise NotCoveredError(line or fn.name, str(numbers[0]), f"{fn.name} jumps at this limit of its "
                                      "argument", "use a continuous function, or move the argument")
        domain = getattr(fn, "domain", "real")
        if domain != "real":
            sign = self.chain.sign(numbers[0])
            if sign == 0 and domain != "nonnegative" or sign < 0 and domain != "nonzero":
                raise NotCoveredError(line or fn.name, str(numbers[0]), f"{fn.name} is not defined here",
                                      "move the argument")
        import sympy

        expression = fn.expression(*(exact(x) for x in numbers))
        if isinstance(expression, sympy.Max | sympy.Min | sympy.Heaviside) or expression.has(sympy.Piecewise):
            expression = sympy.piecewise_fold(expression)
        return self.chain.name(canonical(expression), "c")

    def _split(self, fn: Function, args: tuple[ZVar, ...], line: str) -> ZVar | None:
        """Return ``fn(args)`` with the piecewise polynomials inside taken apart, None if that does not make it flat.

        With s = step(g - t), phi(relu(g) + h) is s phi(g + h) + (1 - s) phi(h): then closed forms apply.
        """
        form = self._flattened(args, 0)
        if form is None:
            return None
        thresholds = sorted({t for a in self._piecewise(args, form) for t in _thresholds(self.atoms[a].fn)})
        total, below = ZVar({}), constant(Fraction(1))
        try:
            for i in range(len(thresholds) + 1):
                value = self.apply(fn, self._branch(args, form, thresholds, i), line)
                here, below = below, ZVar({})
                if i < len(thresholds):
                    below = self.apply(_step(), (form + constant(-thresholds[i]),), line)
                    here = here + below.scaled(Fraction(-1))
                total = total + here * value
        except NotCoveredError:  # a function that jumps at the value of a whole branch
            return None
        return total

    def _flattened(self, args: tuple[ZVar, ...], depth: int) -> ZVar | None:
        """Return a form whose branches make all arguments affine, perhaps after more of them; None if none does."""
        if depth > 2 or all(self._gaussian(z) for z in args):
            return None
        inside = [a for z in args for m in z.terms for a, _ in m if _thresholds(self.atoms[a].fn) is not None]
        form = next((self.atoms[a].args[0] for a in inside if self._gaussian(self.atoms[a].args[0])), None)
        if form is None:
            return None
        thresholds = sorted({t for a in self._piecewise(args, form) for t in _thresholds(self.atoms[a].fn)})
        if len(thresholds) > 2:
            return None
        for i in range(len(thresholds) + 1):
            branch = self._branch(args, form, thresholds, i)
            if not all(self._gaussian(z) for z in branch) and self._flattened(branch, depth + 1) is None:
                return None
        return form

    def _piecewise(self, args: Sequence[ZVar], form: ZVar) -> list[int]:
        return sorted({a for z in args for m in z.terms for a, _ in m
                       if _thresholds(self.atoms[a].fn) is not None and self.atoms[a].args[0] == form})

    def _branch(self, args: tuple[ZVar, ...], form: ZVar, thresholds: Sequence[Fraction], i: int) -> tuple[ZVar, ...]:
        """Return the arguments where the form lies between thresholds i - 1 and i."""
        here = {a: self._compose(_between(self.atoms[a].fn, thresholds, i), form)
                for a in self._piecewise(args, form)}

        def replaced(z: ZVar) -> ZVar:
            total = ZVar({})
            for m, c in z.terms.items():
                term = ZVar({tuple((a, p) for a, p in m if a not in here): c})
                for a, p in m:
                    for _ in range(p if a in here else 0):
                        term = term * here[a]
                total = total + term
            return total

        return tuple(replaced(z) for z in args)

    def _compose(self, coefficients: Sequence[Number], z: ZVar) -> ZVar:
        total, power = ZVar({}), constant(Fraction(1))
        for k, c in enumerate(coefficients):
            if k:
                power = power * z
            total = total + power.scaled(c)
        return total

    # -------------------------------------------------------------------------------------- differentiating

    def derivative(self, z: ZVar, source: int) -> ZVar:
        """Return the derivative by a source; raises Jump where a function on the way jumps."""
        total = ZVar({})
        for m, c in z.terms.items():
            for a, p in m:
                if source not in self.atoms[a].support:
                    continue
                rest = tuple((b, q - (b == a)) for b, q in m if q > (b == a))
                total = total + ZVar({rest: mul(c, Fraction(p))}) * self._slope(a, source)
        return total

    def _slope(self, a: int, source: int) -> ZVar:
        atom = self.atoms[a]
        if atom.fn is None:
            return constant(Fraction(1))
        if source not in atom.slopes:
            if getattr(atom.fn, "jumps", ()):
                raise Jump(atom.fn.name)
            total = ZVar({})
            for i, z in enumerate(atom.args):
                inner = self.derivative(z, source)
                partial = atom.fn.partial(i) if inner.terms else None
                if partial is not None:
                    total = total + self.apply(partial, atom.args) * inner
            atom.slopes[source] = total
        return atom.slopes[source]

    # ---------------------------------------------------------------------------------------- expectations

    def inner(self, x: ZVar, y: ZVar) -> Number:
        """Return ``E[x y]``."""
        total: Number = Fraction(0)
        for m, c in x.terms.items():
            for k, d in y.terms.items():
                e = self.moment(join(m, k))
                if e != 0:
                    total = add(total, mul(mul(c, d), e))
        return self._tidy(total)

    def expect(self, z: ZVar) -> Number:
        """Return ``E[z]``."""
        total: Number = Fraction(0)
        for m, c in z.terms.items():
            e = self.moment(m)
            if e != 0:
                total = add(total, mul(c, e))
        return self._tidy(total)

    def _tidy(self, x: Number) -> Number:
        if isinstance(x, Fraction):
            return x
        x = canonical(x.expand()) if x.count_ops() < 60 else x
        if not isinstance(x, Fraction) and not self.chain.is_free(x) and self.chain.is_zero(x):
            return Fraction(0)
        return self.chain.name(x)

    def moment(self, m: Monomial) -> Number:
        """Return the expectation of a monomial."""
        if not m:
            return Fraction(1)
        if self.odd(m):
            return Fraction(0)
        if m not in self._expected:
            blocks = self._blocks(m)
            if len(blocks) == 1:
                self._expected[m] = self.chain.name(self._block(m), "E")
            else:
                product: Number = Fraction(1)
                for block in blocks:
                    product = mul(product, self.moment(block))
                    if product == 0:
                        break
                self._expected[m] = product
        return self._expected[m]

    def _blocks(self, m: Monomial) -> list[Monomial]:
        """Split a monomial into independent factors."""
        groups: list[tuple[set[int], list[tuple[int, int]]]] = []
        for a, p in m:
            support, members = set(self.atoms[a].support), [(a, p)]
            rest = []
            for other, others in groups:
                if support & other or any(self.covariance(i, j) != 0 for i in support for j in other):
                    support |= other
                    members = others + members
                else:
                    rest.append((other, others))
            groups = [*rest, (support, members)]
        return [tuple(sorted(members)) for _, members in groups]

    def _block(self, m: Monomial) -> Number:
        from tensorprog.gauss.exact import expect

        forms: list[ZVar] = []
        powers: list[int] = []
        functions: list[tuple[Function, ...]] = []

        def form(z: ZVar) -> int:
            if z not in forms:
                forms.append(z)
                powers.append(0)
                functions.append(())
            return forms.index(z)

        flat = True
        for a, p in m:
            atom = self.atoms[a]
            if atom.fn is None:
                powers[form(ZVar({((a, 1),): Fraction(1)}))] += p
            elif len(atom.args) == 1 and self._gaussian(atom.args[0]):
                functions[form(atom.args[0])] += (atom.fn,) * p
            else:
                flat = False
        if not flat:
            return self._nested(m)
        mean = [self.linear_mean(z) for z in forms]
        cov = [[self.linear_covariance(x, y) for y in forms] for x in forms]
        found = expect(mean, cov, powers, functions, self.chain)
        return found if found is not None else self._node(mean, cov, powers, functions)

    def _gaussian(self, z: ZVar) -> bool:
        return z.affine and all(self.atoms[a].fn is None for m in z.terms for a, _ in m)

    def linear_mean(self, z: ZVar) -> Number:
        """Return the mean of an affine form of sources."""
        total: Number = Fraction(0)
        for m, c in z.terms.items():
            total = add(total, mul(c, self.atoms[m[0][0]].mean) if m else c)
        return self.chain.name(total)

    def linear_covariance(self, x: ZVar, y: ZVar) -> Number:
        """Return the covariance of two affine forms of sources."""
        total: Number = Fraction(0)
        for m, c in x.terms.items():
            for k, d in y.terms.items():
                if m and k and (cov := self.covariance(m[0][0], k[0][0])) != 0:
                    total = add(total, mul(mul(c, d), cov))
        return self.chain.name(canonical(total) if isinstance(total, Fraction) else canonical(total.expand()))

    # ------------------------------------------------------------------------- what has no closed form

    def _node(self, mean, cov, powers, functions) -> Number:
        """Return an unevaluated expectation over the forms inside functions, polynomial factors taken out by Wick."""
        import sympy

        from tensorprog.gauss.expectation import Expect

        zs = sympy.symbols(f"z1:{len(mean) + 1}", real=True)
        body = sympy.Integer(1)
        for z, p, fns in zip(zs, powers, functions, strict=True):
            body *= z**p
            for fn in fns:
                body *= expression_of(fn, z)
        return Expect(body, zs, [exact(x) for x in mean], [[exact(x) for x in row] for row in cov])

    def _nested(self, m: Monomial) -> Number:
        import sympy

        from tensorprog.gauss.expectation import Expect

        sources = sorted(frozenset().union(*(self.atoms[a].support for a, _ in m)))
        zs = sympy.symbols(f"z1:{len(sources) + 1}", real=True)
        body = self.express(ZVar({m: Fraction(1)}), dict(zip(sources, zs, strict=True)))
        return Expect(body, zs, [exact(self.atoms[i].mean) for i in sources],
                      [[exact(self.covariance(i, j)) for j in sources] for i in sources])

    def express(self, z: ZVar, symbols: Mapping[int, Any], shown: Callable | None = None):
        """Return a Z-variable as a sympy expression in symbols for its sources."""
        import sympy

        def atom(a: int):
            if a in symbols:
                return symbols[a]
            found = self.atoms[a]
            return expression_of(found.fn, *(self.express(x, symbols) for x in found.args))

        return sympy.Add(*(exact(c) * sympy.Mul(*(atom(a) ** p for a, p in m)) for m, c in z.terms.items()))


def expression_of(fn: Any, *args):
    """Return ``fn(args)`` as a sympy expression; of a function without formula, as an opaque one that evaluates."""
    try:
        return fn.expression(*args)
    except (NotCoveredError, AttributeError):
        return opaque(fn)(*args)


def opaque(fn: Any):
    """Return a sympy function that stands for a record without a formula, and evaluates by its numpy values."""
    import sympy

    if fn not in _OPAQUE:
        slope = fn.partial

        def fdiff(self, argindex=1):
            partial = slope(argindex - 1)
            return sympy.S.Zero if partial is None else expression_of(partial, *self.args)

        made = type(fn.name, (sympy.Function,), {"nargs": fn.arity, "fdiff": fdiff,
                                                 "_imp_": staticmethod(lambda *x: fn.evaluate({}, {}, *x))})
        _OPAQUE[fn] = made
    return _OPAQUE[fn]


_OPAQUE: dict = {}


def _step() -> Function:
    from tensorprog.atoms.registry import nonlinearity

    return nonlinearity("step")


def _thresholds(fn: Any) -> tuple[Fraction, ...] | None:
    """Return where a piecewise polynomial has its joints; None for every other function."""
    pieces = getattr(fn, "pieces", None) if fn is not None and fn.arity == 1 else None
    if not pieces or not all(k == type(k)(gates=k.gates) and all(v == 0 for _, v in k.gates) for k in pieces):
        return None
    return tuple(sorted({t for k in pieces for t, _ in k.gates}))


def _between(fn: Any, thresholds: Sequence[Fraction], i: int) -> list[Number]:
    """Return the coefficients of a piecewise polynomial between thresholds i - 1 and i."""
    total: list[Number] = [Fraction(0)]
    for kind, coefficients in fn.pieces.items():
        if all(i > thresholds.index(t) for t, _ in kind.gates):
            total += [Fraction(0)] * (len(coefficients) - len(total))
            for j, c in enumerate(coefficients):
                total[j] += c
    return total


def _polynomial(fn: Any) -> list[Number] | None:
    """Return the coefficients of a function that is a polynomial in one argument, None if it is none."""
    if fn.arity != 1:
        return None
    if fn not in _POLYNOMIALS:
        _POLYNOMIALS[fn] = _coefficients(fn)
    return _POLYNOMIALS[fn]


def _coefficients(fn: Any) -> list[Number] | None:
    import sympy

    x = sympy.Symbol("x", real=True)
    try:
        expression = fn.expression(x) + sympy.Integer(0)
    except (NotCoveredError, AttributeError):
        return None
    if not expression.is_polynomial(x):
        return None
    return [canonical(c) for c in reversed(sympy.Poly(expression, x).all_coeffs())]


_POLYNOMIALS: dict = {}
