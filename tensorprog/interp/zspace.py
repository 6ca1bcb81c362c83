"""Z-variables: random variables that are polynomials in Gaussian sources and functions of them, and their expectations.

A Z-variable is a polynomial with exact coefficients in *atoms*. An atom is a source (a coordinate of an initial vector,
or a hat: the fresh Gaussian part of a product with a random matrix) or a function of Z-variables. Atoms are numbered,
equal ones once, so a program of L layers needs O(L) atoms however deeply they nest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tensorprog.atoms.function import Function
from tensorprog.errors import NotCoveredError
from tensorprog.gauss.chain import Chain, Number, add, canonical, exact, mul
from tensorprog.gauss.quadrature import in_time
from tensorprog.interp.branches import taken_apart
from tensorprog.interp.formulas import expression_of, polynomial
from tensorprog.interp.zvar import UNIT as UNIT
from tensorprog.interp.zvar import Monomial, ZVar, constant, join, single

#: Nested expectations of up to this many functions are written as formulas, longer ones as functions of their sources.
_LARGE = 6


class Jump(Exception):
    """A derivative meets a function that jumps: Stein's lemma takes its place."""


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
        self._sizes: dict[int, int] = {}
        self._opaque = 0

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
        return single(i)

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
        coefficients = polynomial(fn)
        if coefficients is not None:
            return self.compose(coefficients, args[0])
        key = (fn, args)
        if key not in self._applied and (split := taken_apart(self, fn, args, line)) is not None:
            self._applied[key] = split
        if key not in self._applied:
            support = frozenset().union(*(self.support(z) for z in args))
            self.atoms.append(Atom(getattr(fn, "name", "f"), fn, args, support=support, odd=self._parity(fn, args)))
            self._applied[key] = single(len(self.atoms) - 1)
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

    def compose(self, coefficients: Sequence[Number], z: ZVar) -> ZVar:
        """Return a polynomial of a Z-variable, coefficients from that of power 0 on."""
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
            in_time()
            blocks = self._blocks(m)
            if any(self.odd(block) for block in blocks):
                self._expected[m] = Fraction(0)
            elif len(blocks) == 1:
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
                powers[form(single(a))] += p
            elif len(atom.args) == 1 and self.gaussian(atom.args[0]):
                functions[form(atom.args[0])] += (atom.fn,) * p
            else:
                flat = False
        if not flat:
            return self._nested(m)
        mean = [self.linear_mean(z) for z in forms]
        cov = [[self.linear_covariance(x, y) for y in forms] for x in forms]
        found = expect(mean, cov, powers, functions, self.chain)
        return found if found is not None else self._node(mean, cov, powers, functions)

    def gaussian(self, z: ZVar) -> bool:
        """Return whether a Z-variable is an affine form of sources."""
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

        z = ZVar({m: Fraction(1)})
        forms = list(self._forms(z))
        zs = sympy.symbols(f"z1:{len(forms) + 1}", real=True)
        if self._size(z) <= _LARGE or self.depends_on_free(z):
            body = self.express(z, dict(zip(forms, zs, strict=True)))
        else:  # as a formula it would be long: each use of a variable is written out
            self._opaque += 1

            def values(*xs):
                return self.evaluate(z, dict(zip(forms, xs, strict=True)))

            facts = {"nargs": len(forms), "_imp_": staticmethod(values)}
            body = type(f"F_{self._opaque}", (sympy.Function,), facts)(*zs)
        return Expect(body, zs, [exact(self.linear_mean(x)) for x in forms],
                      [[exact(self.linear_covariance(x, y)) for y in forms] for x in forms])

    def _forms(self, z: ZVar) -> dict[ZVar, None]:
        """Return the affine forms that a Z-variable is a function of: sources, and arguments of functions."""
        found: dict[ZVar, None] = {}
        for m in z.terms:
            for a, _ in m:
                if self.atoms[a].fn is None:
                    found[single(a)] = None
                for x in self.atoms[a].args:
                    found.update({x: None} if self.gaussian(x) and x.number is None else self._forms(x))
        return found

    def _size(self, z: ZVar) -> int:
        """Return how many functions the formula of a Z-variable has, written out."""
        total = 0
        for m in z.terms:
            for a, _ in m:
                atom = self.atoms[a]
                if a not in self._sizes:
                    self._sizes[a] = 0 if atom.fn is None else 1 + sum(self._size(x) for x in atom.args)
                total += self._sizes[a]
        return total

    def depends_on_free(self, z: ZVar) -> bool:
        """Return whether a Z-variable has a coefficient, however deep inside, that has no value."""
        return any(self.chain.is_free(c) for c in z.terms.values()) or any(
            self.depends_on_free(x) for m in z.terms for a, _ in m for x in self.atoms[a].args)

    def evaluate(self, z: ZVar, forms: Mapping[ZVar, Any]) -> Any:
        """Return the values of a Z-variable at arrays of values of its forms; shared atoms are computed once."""
        known: dict[int, Any] = {}

        def polynomial(z: ZVar):
            if z in forms:
                return forms[z]
            total = 0.0
            for m, c in z.terms.items():
                term = float(self.chain.value(c))
                for a, p in m:
                    term = term * (atom(a) if p == 1 else atom(a) ** p)
                total = total + term
            return total

        def atom(a: int):
            if a not in known:
                fn = self.atoms[a].fn
                known[a] = forms[single(a)] if fn is None else fn.evaluate(
                    {}, {}, *(polynomial(x) for x in self.atoms[a].args))
            return known[a]

        return polynomial(z)

    def express(self, z: ZVar, symbols: Mapping[Any, Any]):
        """Return a Z-variable as a sympy expression in symbols of sources (by number) or of affine forms."""
        import sympy

        if z in symbols:
            return symbols[z]

        def atom(a: int):
            if a in symbols:
                return symbols[a]
            found = self.atoms[a]
            if found.fn is None:
                return symbols[single(a)]
            return expression_of(found.fn, *(self.express(x, symbols) for x in found.args))

        return sympy.Add(*(exact(c) * sympy.Mul(*(atom(a) ** p for a, p in m)) for m, c in z.terms.items()))
