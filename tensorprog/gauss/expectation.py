"""``E[expr]`` over jointly Gaussian numbers as a sympy expression: it prints, differentiates and evaluates itself.

The node is an expression like any other. Nothing is evaluated when it is built; it is only brought to one form, so that
equal expectations are equal: unused Gaussians dropped, dependent ones written in the others, constant factors in front.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import permutations
from typing import TYPE_CHECKING, Any

from tensorprog.errors import NotCoveredError

if TYPE_CHECKING:
    Expect: Any


def __getattr__(name: str):
    # sympy is loaded when the node is first asked for.
    if name == "Expect":
        return _node()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _node():
    import sympy

    class Expect(sympy.Expr):
        r"""``E[expr]`` with ``z_1, ..., z_K`` jointly Gaussian.

        Args:
            expr: a sympy expression in ``zs`` and any other symbols. Functions with an ``_imp_`` (numpy callables) are
                allowed; they are known to double precision only.
            zs: K symbols, bound by the expectation.
            mean: K numbers (Fraction, int or sympy; symbols are allowed).
            cov: K rows of K numbers, positive semidefinite.

        Derivatives: with respect to symbols in ``expr``, inside; with respect to symbols in ``mean`` and ``cov``,
        ``dE f/dm_i = E[d_i f]`` and ``dE f/dC_ij = E[d_i d_j f]/2`` (i, j in both orders), where a delta function
        conditions the Gaussian. ``evalf(n)`` gives n digits if it splits into independent expectations over at most
        two Gaussians, else those of doubles; it stays as it is while a symbol has no value.

        Raises:
            NotCoveredError: ``evalf`` of an expectation that diverges, or of a matrix that is no covariance.

        Example:
            >>> z1, z2, q, c = sympy.symbols("z1 z2 q c")
            >>> e = _node()(3 * sympy.tanh(z1) * sympy.tanh(z2), (z1, z2), (0, 0), ((q, c), (c, q)))
            >>> e, e.free_symbols == {q, c}
            (3*E[tanh(z1)*tanh(z2)], True)
            >>> e.args[1].law()
            'z1, z2 ~ N([0, 0], [[q, c], [c, q]])'
            >>> e.diff(c)
            3*E[(1 - tanh(z1)**2)*(1 - tanh(z2)**2)]
            >>> e.subs({q: 1, c: Fraction(1, 2)}).evalf(20)
            0.55897323961034515738

        Source: price1958useful (derivatives in the covariance).
        """

        is_commutative = True

        def __new__(cls, expr, zs, mean, cov):
            law = [tuple(zs), [number(x) for x in mean], [[number(x) for x in row] for row in cov]]
            front, expr, law = _reduced(number(expr), *law)
            if not law[0]:
                return front * expr
            zs, mean, cov = law
            args = (expr, sympy.Tuple(*zs), sympy.Tuple(*mean), sympy.Tuple(*(sympy.Tuple(*row) for row in cov)))
            node = sympy.Expr.__new__(cls, *args)
            return node if front == 1 else front * node

        @property
        def expr(self) -> Any:
            return self.args[0]

        @property
        def zs(self) -> Any:
            return self.args[1]

        @property
        def mean(self) -> Any:
            return self.args[2]

        @property
        def cov(self) -> Any:
            return self.args[3]

        @property
        def bound_symbols(self):
            return list(self.zs)

        @property
        def free_symbols(self):
            return (self.expr.free_symbols - set(self.zs)) | self.mean.free_symbols | self.cov.free_symbols

        def law(self, latex: bool = False) -> str:
            """Return the law of the Gaussians, as text or LaTeX."""
            names = [sympy.Symbol(z.name) for z in self.zs]
            rows = [list(row) for row in self.cov]
            if not latex:
                return f"{', '.join(map(str, names))} ~ N({list(self.mean)}, {rows})"
            left = ", ".join(map(sympy.latex, names))
            left = left if len(names) == 1 else rf"\left({left}\right)"
            middle = sympy.latex(self.mean[0] if len(names) == 1 else sympy.Matrix(list(self.mean)))
            right = sympy.latex(rows[0][0] if len(names) == 1 else sympy.Matrix(rows))
            return rf"{left} \sim \mathcal{{N}}\left({middle}, {right}\right)"

        def estimate(self, tol: float = 1e-12):
            """Return value, error and method by quadrature in double precision; all symbols must have values."""
            from tensorprog.gauss import evaluation

            return evaluation.estimate(self, tol)

        def _shown(self):
            return self.expr.xreplace({z: sympy.Symbol(z.name) for z in self.zs})

        def _sympystr(self, printer):
            return f"E[{printer.doprint(self._shown())}]"

        def _latex(self, printer):
            return rf"\mathbb{{E}}\left[{printer.doprint(self._shown())}\right]"

        def _xreplace(self, rule):
            if self in rule:
                return rule[self], True
            inner = {k: v for k, v in rule.items() if k not in self.zs}
            parts = [self.expr._xreplace(inner), *(x._xreplace(rule) for x in (self.mean, self.cov))]
            if not any(changed for _, changed in parts):
                return self, False
            (expr, _), (mean, _), (cov, _) = parts
            return self.func(expr, self.zs, mean, cov), True

        def _eval_subs(self, old, new):
            if old in self.zs:
                return self.func(self.expr, self.zs, self.mean.subs(old, new), self.cov.subs(old, new))
            return None

        def _eval_derivative(self, s):
            return _derivative(self, s)

        def _eval_evalf(self, prec):
            from tensorprog.gauss import evaluation

            return evaluation.digits(self, prec)

        def _eval_is_real(self):
            return True if self.expr.is_real else None

        def _eval_is_nonnegative(self):
            return True if self.expr.is_nonnegative else None

        def _eval_is_nonpositive(self):
            return True if self.expr.is_nonpositive else None

        def _eval_is_positive(self):
            return True if self.expr.is_positive else None

        def _eval_is_negative(self):
            return True if self.expr.is_negative else None

        def __reduce_ex__(self, protocol):
            return _rebuild, tuple(self.args)

    Expect.__qualname__ = "Expect"
    return Expect


def _rebuild(*args):
    return _node()(*args)


@cache
def gaussian(i: int):
    """Return the i-th bound symbol (from 1), one and the same everywhere, and different from any other symbol.

    >>> gaussian(1) == gaussian(1), gaussian(1).name
    (True, 'z1')
    """
    import sympy

    return sympy.Dummy(f"z{i}", dummy_index=i, real=True)


def number(x) -> Any:
    """Return a number or expression as a sympy object.

    >>> number(Fraction(1, 3)), number(2)
    (1/3, 2)
    """
    import sympy

    if isinstance(x, sympy.Basic):
        return x
    if isinstance(x, float):
        return sympy.Float(x)
    return sympy.Rational(Fraction(x).numerator, Fraction(x).denominator)


def _reduced(expr, zs, mean, cov):
    """Return the constant factor, the expression and the law in the form in which equal ones are equal."""
    import sympy

    stand = [sympy.Dummy(f"y{i}", real=True) for i in range(len(zs))]
    expr = expr.xreplace(dict(zip(zs, stand, strict=True)))
    zs, kept = stand, []
    for j, z in enumerate(zs):
        if z not in expr.free_symbols:
            continue
        dependence = _dependence(cov, mean, kept, j, zs)
        if dependence is None:
            kept.append(j)
        else:
            expr = expr.xreplace({z: dependence})
    kept = [j for j in kept if zs[j] in expr.free_symbols]
    front, expr = expr.as_independent(*(zs[j] for j in kept), as_Add=False) if kept else (sympy.S.One, expr)
    inner = expr.atoms(_node())
    if any(e.free_symbols & set(zs) for e in inner):
        raise NotCoveredError(f"E[{expr}]", str(inner), "an expectation inside depends on the Gaussians outside",
                              "write one expectation over all of them")
    orders = list(permutations(kept)) if 1 < len(kept) <= 3 else [tuple(kept)]
    named = []
    for order in orders:
        named.append((expr.xreplace({zs[j]: gaussian(i + 1) for i, j in enumerate(order)}), order))
    if len(named) > 1:
        def key(pair):
            law = sympy.Tuple(*(cov[i][j] for i in pair[1] for j in pair[1]), *(mean[i] for i in pair[1]))
            return pair[0].sort_key(), law.sort_key()

        named.sort(key=key)
    expr, order = named[0]
    return front, expr, ([gaussian(i + 1) for i in range(len(order))], [mean[j] for j in order],
                         [[cov[i][j] for j in order] for i in order])


def _dependence(cov, mean, kept, j, zs):
    """Return z_j as an affine function of the ``kept`` ones if algebra shows that it is one, else None."""
    if cov[j][j].is_zero:
        return mean[j]
    for i in kept:
        if cov[i][j] != 0 and (cov[i][j] ** 2 - cov[i][i] * cov[j][j]).expand() == 0:
            return mean[j] + cov[i][j] / cov[i][i] * (zs[i] - mean[i])
    if len(kept) < 2 or not all(cov[a][b].is_Rational for a in (*kept, j) for b in (*kept, j)):
        return None
    import sympy

    among = sympy.Matrix([[cov[a][b] for b in kept] for a in kept])
    with_j = sympy.Matrix([cov[a][j] for a in kept])
    slopes = among.LUsolve(with_j) if among.det() != 0 else None
    if slopes is None or (with_j.T * slopes)[0] != cov[j][j]:
        return None
    return mean[j] + sympy.Add(*(s * (zs[i] - mean[i]) for s, i in zip(slopes, kept, strict=True)))


def _derivative(node, s):
    import sympy

    zs, mean, cov = list(node.zs), list(node.mean), [list(row) for row in node.cov]
    if s not in node.free_symbols:
        return sympy.S.Zero
    real = {x: sympy.Dummy(x.name, real=True) for x in node.free_symbols if x.is_real is None}
    if real:  # all numbers here are; |z - b| differentiates only if sympy knows it
        return node.xreplace(real).diff(real.get(s, s)).xreplace({y: x for x, y in real.items()})
    total = expectation(node.expr.diff(s), zs, mean, cov) if s not in zs else sympy.S.Zero
    weak = _as_steps(node.expr)
    for i, z in enumerate(zs):
        if (rate := mean[i].diff(s)) != 0:
            total += rate * expectation(weak.diff(z), zs, mean, cov)
        for j in range(i + 1):
            rate = cov[i][j].diff(s)
            if rate != 0:
                twice = expectation(weak.diff(z).diff(zs[j]), zs, mean, cov)
                total += rate * twice / (2 if i == j else 1)
    return total


def _as_steps(expr):
    """Return the expression with Piecewise written by steps, whose derivatives know the jumps."""
    import sympy

    def steps(*pieces):
        found = sympy.S.Zero
        for value, condition in reversed(pieces):
            if condition == sympy.true:
                found = value
            elif isinstance(condition, sympy.Gt | sympy.Ge | sympy.Lt | sympy.Le):
                found = found + (value - found) * sympy.Heaviside(number(condition.gts) - number(condition.lts))
            else:
                raise NotCoveredError(f"E[{expr}]", str(condition), "no derivative is known for pieces like this",
                                      "write it with Heaviside")
        return found

    return expr.replace(sympy.Piecewise, steps)


def expectation(expr, zs, mean, cov):
    """Return E[expr], its delta functions of affine arguments worked out by conditioning the Gaussian.

    Raises:
        NotCoveredError: the argument of a delta function is not affine in the Gaussians, or has no variance.

    Example:
        >>> import sympy
        >>> x, y = sympy.symbols("x y")
        >>> expectation(sympy.DiracDelta(x) * sympy.cos(y), (x, y), (0, 0), ((1, 0), (0, 1)))
        sqrt(2)*E[cos(z1)]/(2*sqrt(pi))
    """
    import sympy

    expr, make = number(expr), _node()
    if not expr.has(sympy.DiracDelta):
        return make(expr, zs, mean, cov)
    total = sympy.S.Zero
    for term in sympy.Add.make_args(expr.expand()):
        delta = next((f for f in sympy.Mul.make_args(term) if isinstance(f, sympy.DiracDelta)), None)
        if delta is None:
            total += make(term, zs, mean, cov)
            continue
        total += _conditioned(delta, term / delta, list(zs), [number(x) for x in mean],
                              [[number(x) for x in row] for row in cov])
    return total


def _conditioned(delta, rest, zs, mean, cov):
    import sympy

    # E[delta^(k)(l) g] = (-1)^k (d/dt)^k (p_l(t) E[g | l = t]) at t = 0, p_l the density of l.
    argument, order = delta.args[0], delta.args[1] if len(delta.args) > 1 else sympy.S.Zero
    slopes = [number(sympy.diff(argument, z)) for z in zs]
    if any(a.free_symbols & set(zs) for a in slopes) or not order.is_Integer:
        raise NotCoveredError(f"E[{delta * rest}]", str(delta), "this delta function cannot be worked out",
                              "its argument must be affine in the Gaussians")
    k, t = range(len(zs)), sympy.Dummy("t", real=True) if order else sympy.S.Zero
    constant = argument.xreplace(dict.fromkeys(zs, sympy.S.Zero)) - t
    with_it = [sympy.Add(*(cov[i][j] * slopes[j] for j in k)) for i in k]
    variance = sympy.Add(*(slopes[i] * with_it[i] for i in k)).expand()
    if variance.is_zero:
        raise NotCoveredError(f"E[{delta * rest}]", str(delta), "a delta function of a constant has no expectation",
                              "give its argument a variance")
    centre = sympy.Add(constant, *(slopes[i] * mean[i] for i in k))
    density = sympy.exp(-centre**2 / (2 * variance)) / sympy.sqrt(2 * sympy.pi * variance)
    out = next(i for i in reversed(k) if slopes[i] != 0)
    others = [i for i in k if i != out]
    solved = -(constant + sympy.Add(*(slopes[i] * zs[i] for i in others))) / slopes[out]
    found = density * expectation(
        rest.xreplace({zs[out]: solved}), [zs[i] for i in others],
        [mean[i] - with_it[i] * centre / variance for i in others],
        [[cov[i][j] - with_it[i] * with_it[j] / variance for j in others] for i in others])
    return (-1) ** order * found.diff(t, order).xreplace({t: sympy.S.Zero}) if order else found
