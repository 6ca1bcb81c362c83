"""Moments of matrix expressions: programs that apply powers of a matrix to a random vector, and their limits.

``tau(M) = lim (1/size) tr M`` is the limit of ``mean(g * (M @ g))`` for a vector g of independent N(0, 1) coordinates.
Of a symmetric M, ``tau(M^(i+j)) = lim mean((M^i g) * (M^j g))``, so that K moments need K/2 products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.exponents.affine import Values
from tensorprog.exponents.scale import Scale
from tensorprog.gauss.chain import Number, canonical, exact
from tensorprog.interp.limit import Limits
from tensorprog.interp.scaling import Scaling
from tensorprog.program.build import Letter, Matrix
from tensorprog.program.dims import Dim
from tensorprog.program.needed import needed
from tensorprog.program.program import Program, spell
from tensorprog.spectra.density import Spectrum, spectrum

Data = Mapping[str, Sequence[Fraction]] | None

#: Digits of the moments of a spectrum, where they are not rational.
_DIGITS = 30


class LinearMap:
    """Abstract: what moments need of a matrix. A ``Matrix`` of a program has the same members."""

    program: Any
    rows: Any
    cols: Any

    @property
    def T(self) -> Any:
        """The transpose."""
        raise NotImplementedError

    @property
    def needs(self) -> tuple[str, ...]:
        """The variables of the program that it is made of."""
        raise NotImplementedError

    def within(self, program: Program) -> Any:
        """Return the same map in another program that has these variables."""
        raise NotImplementedError

    def __matmul__(self, vector):
        raise NotImplementedError


@dataclass(frozen=True)
class Gram(LinearMap):
    """``B.T @ B``: symmetric, its eigenvalues are the squares of the singular values of B."""

    of: Any

    @property
    def program(self) -> Program:
        """The program of B."""
        return self.of.program

    @property
    def rows(self) -> Dim:
        """The axis along which B takes vectors."""
        return self.of.cols

    @property
    def cols(self) -> Dim:
        """The same."""
        return self.of.cols

    @property
    def T(self) -> Gram:
        """Itself."""
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """The variables that B is made of."""
        return needs(self.of)

    def within(self, program: Program) -> Gram:
        """Return the same in another program."""
        return Gram(within(self.of, program))

    def __matmul__(self, vector):
        return self.of.T @ (self.of @ vector)

    def __str__(self) -> str:
        return f"({self.of}).T @ ({self.of})"


def needs(matrix: Matrix | LinearMap) -> tuple[str, ...]:
    """Return the variables of the program that a map is made of."""
    if not isinstance(matrix, Matrix):
        return matrix.needs
    return tuple(dict.fromkeys(name for _, scalars, word in matrix.parts
                               for name in (*(v for v, _ in scalars), *(x.name for x in word))))


def within(matrix: Any, program: Program) -> Any:
    """Return the same map in another program."""
    return replace(matrix, program=program) if isinstance(matrix, Matrix) else matrix.within(program)


def is_symmetric(matrix: Matrix | LinearMap) -> bool:
    """Return whether a map is symmetric as an expression: equal to its transpose term by term.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, V = p.matrix("W", n, n), p.matrix("V", n, n)
        >>> is_symmetric(W + W.T), is_symmetric(W.T @ V.T @ V @ W), is_symmetric(W @ V)
        (True, True, False)
    """
    if not isinstance(matrix, Matrix):
        return isinstance(matrix, Gram)

    def words(m: Matrix) -> dict:
        total: dict = {}
        for coef, scalars, word in m.parts:
            key = (coef.powers, scalars, _diagonals_sorted(word))
            total[key] = total.get(key, 0) + coef.number
        return {k: c for k, c in total.items() if c != 0}

    return matrix.rows == matrix.cols and words(matrix) == words(matrix.T)


def _diagonals_sorted(word: tuple[Letter, ...]) -> tuple[Letter, ...]:
    """Return a word with neighbouring diagonals, which commute, in one order."""
    out: list[Letter] = []
    for letter in word:
        place = len(out)
        while letter.diagonal and place and out[place - 1].diagonal and out[place - 1].name > letter.name:
            place -= 1
        out.insert(place, letter)
    return tuple(out)


def excerpt(program: Program, names: Iterable[str]) -> Program:
    """Return the lines that variables depend on, as a program of its own that is not frozen."""
    part = needed(program, list(names))
    return Program(part.dims.values(), part.lines, unknowns=part.unknowns)


def moment_program(matrix: Matrix | LinearMap, order: int) -> tuple[Program, tuple[tuple[str, Number], ...]]:
    """Return a program that computes ``mean(g * (M^k @ g))``, k = 1 to order.

    Args:
        matrix: a square matrix expression of a program (sums, products, transposes, ``diag(x)``), or a ``LinearMap``.
        order: the largest k.

    Returns:
        The program, and for every k its scalar and the number in front of it (so that the program is rational).

    Raises:
        ProgramError: the matrix is not square, or the order is not positive.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W = p.matrix("W", n, n)
        >>> q, scalars = moment_program(W + W.T, 4)
        >>> len([x for x in q.lines if spell(x).count("@")]), scalars[-1]       # two products with W and W.T each
        (4, ('moment4', Fraction(1, 1)))

    Source: yang2020matrix.
    """
    if matrix.rows != matrix.cols:
        raise ProgramError(f"moments of {matrix}", f"{matrix.rows.name} x {matrix.cols.name}",
                           "only a square matrix has powers", "take M.T @ M, or singular_values(M)")
    if order < 1:
        raise ProgramError(f"moments of {matrix}", order, "moments are counted from 1", "use order >= 1")
    program, front = excerpt(matrix.program, needs(matrix)), Fraction(1)
    if isinstance(matrix, Matrix):
        matrix, front = _without_factor(matrix)
    m, symmetric = within(matrix, program), is_symmetric(matrix)
    prefix = "moment" if not any(f"moment{k}" in program for k in range(order + 1)) else program.fresh("moment") + "_"
    g = program.vector(program.fresh("probe"), m.rows)
    powers, scalars = [g], []
    for k in range(1, order + 1):
        i, j = (k // 2, k - k // 2) if symmetric else (0, k)
        if len(powers) <= j:
            powers.append((m @ powers[-1])._variable())
        program.output(program.let(f"{prefix}{k}", program.mean(powers[i] * powers[j])))
        scalars.append((f"{prefix}{k}", canonical(front**k)))
    return program.freeze(), tuple(scalars)


def _without_factor(matrix: Matrix) -> tuple[Matrix, Number]:
    """Return a matrix and a number whose product is the given one; the matrix rational, if that can be."""
    first = matrix.parts[0][0].number
    if isinstance(first, Fraction):
        return matrix, Fraction(1)
    parts = tuple((coef * Scale.of(1 / first), scalars, word) for coef, scalars, word in matrix.parts)
    if not all(isinstance(coef.number, Fraction) for coef, _, _ in parts):
        return matrix, Fraction(1)
    return replace(matrix, parts=parts), first


def moments(matrix: Matrix | LinearMap, order: int, *, values: Values | None = None,
            ratios: Mapping[str, Any] | None = None, data: Data = None,
            budget: float | None = None) -> tuple[Number, ...]:
    r"""Return ``tau(M^k) = lim (1/size) tr M^k``, k = 0 to order, exactly.

    Args:
        matrix: a square matrix expression of a program (sums, products, transposes, ``diag(x)``), or a ``LinearMap``.
        order: the largest k.
        values: the unknown exponents of the program.
        ratios: for dimensions of growth 1 a sympy symbol (or number) to stand for their ratio to n; the moments are
            then expressions in it.
        data: coordinates of generic data, by name.
        budget: seconds after which the exact computation gives up.

    Returns:
        Exact numbers: Fractions, or sympy expressions.

    Raises:
        NotCoveredError: the theory does not cover the program, or the moments grow with n.

    Example:
        >>> import sympy
        >>> p = Program()
        >>> n, m = p.dim("n"), p.dim("m")
        >>> W, X = p.matrix("W", n, n, variance=n**-1 / 2), p.matrix("X", m, n)
        >>> [str(x) for x in moments(W + W.T, 8)]                                  # Wigner's semicircle
        ['1', '0', '1', '0', '2', '0', '5', '0', '14']
        >>> moments(X.T @ X, 3, ratios={"m": sympy.Symbol("c", positive=True)})[1:]         # Marchenko-Pastur
        (c, c**2 + c, c**3 + 3*c**2 + c)

    Source: yang2020matrix.
    """
    program, scalars = moment_program(matrix, order)
    names = [name for name, _ in scalars]
    found = scalar_limits(program, names, values=values, ratios=ratios, data=data, budget=budget)
    return (Fraction(1), *(_times(found[name], front) for name, front in scalars))


def _times(x: Number, y: Number) -> Number:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x * y
    return canonical((exact(x) * exact(y)).expand())


def scalar_limits(program: Program, names: Iterable[str], *, values: Values | None = None,
                  ratios: Mapping[str, Any] | None = None, data: Data = None,
                  budget: float | None = None) -> dict[str, Number]:
    """Return the exact limits of scalars, named quantities written out, those of negative exponent as 0.

    Raises:
        NotCoveredError: the theory does not cover a line, or a scalar grows.
    """
    return {name: _written_out(limits, x) for name, (limits, x) in
            _scalars(program, names, values, ratios, data, budget).items()}


def _scalars(program: Program, names: Iterable[str], values: Values | None, ratios: Mapping[str, Any] | None,
             data: Data, budget: float | None) -> dict[str, tuple[Limits | None, Number]]:
    """Return the limits of scalars, in the named quantities of the Limits that stand beside them."""
    names = list(names)
    scaling = Scaling(program, values)
    exponents = {name: scaling.exponent(name) for name in names}
    for name, e in exponents.items():
        if e is not None and e > 0:
            raise NotCoveredError(spell(program.line_of(name)), f"n^({e})", f"{name} grows like n^({e}), so it has no "
                                  "limit", "scale the matrix so that its norm stays bounded")
    # what vanishes is left out: its leading coefficient is nobody's business
    alive = [name for name in names if exponents[name] == 0]
    part = excerpt(program, alive).freeze()
    known = {name: xs for name, xs in (data or {}).items() if name in part}
    limits = Limits(part, values, data=known, ratios=ratios, budget=budget)
    found: dict[str, tuple[Limits | None, Number]] = dict.fromkeys(names, (None, Fraction(0)))
    for name in alive:
        x = limits.names(name)
        found[name] = limits, canonical(limits.scalar(x) if isinstance(x, str) else x)
    return found


def _written_out(limits: Limits | None, x: Number) -> Number:
    if limits is None or isinstance(x, Fraction):
        return x
    known = limits.chain.definitions
    while symbols := [s for s in x.free_symbols if s in known]:
        x = x.xreplace({s: known[s] for s in symbols})
    return canonical(x.expand())


def _spectrum(matrix: Matrix | LinearMap, order: int, values: Values | None, data: Data,
              budget: float | None) -> Spectrum:
    """Return the spectrum; of moments that are not rational the first ``_DIGITS`` digits, never their formulas."""
    program, scalars = moment_program(matrix, order)
    limits = _scalars(program, [name for name, _ in scalars], values, None, data, budget)
    numbers, errors = [Fraction(1)], [Fraction(0)]
    for name, front in scalars:
        chain, x = limits[name]
        if isinstance(x, Fraction) and isinstance(front, Fraction):
            numbers.append(x * front)
            errors.append(Fraction(0))
            continue
        digits = x if isinstance(x, Fraction) or chain is None else Fraction(str(chain.chain.value(x, _DIGITS)))
        numbers.append(Fraction(digits) * Fraction(str(exact(front).evalf(_DIGITS))))
        errors.append(abs(numbers[-1]) / 10 ** (_DIGITS - 2))
    return spectrum(numbers, errors if any(errors) else None)


def eigenvalues(matrix: Matrix | LinearMap, order: int = 16, *, values: Values | None = None,
                data: Data = None, budget: float | None = None) -> Spectrum:
    """Return the limit of the distribution of a symmetric matrix's eigenvalues, from its first moments.

    Args:
        matrix: symmetric; ``order``: the number of moments; ``values``, ``data``, ``budget``: as for ``moments``.

    Raises:
        ProgramError: the matrix is not symmetric as an expression.
        NotCoveredError: the theory does not cover the program.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W = p.matrix("W", n, n, variance=n**-1 / 2)
        >>> print(eigenvalues(W + W.T, 8))
        spectrum on [-2, 2] (algebraic; error of the cdf 1e-08)

    Source: yang2020matrix.
    """
    if not is_symmetric(matrix):
        raise ProgramError(f"eigenvalues of {matrix}", str(matrix), "this matrix is not symmetric as it is written",
                           "take singular_values, or write it symmetrically: (M + M.T) / 2, M.T @ M")
    return _spectrum(matrix, order, values, data, budget)


def singular_values(matrix: Matrix | LinearMap, order: int = 16, *, values: Values | None = None,
                    data: Data = None, budget: float | None = None) -> Spectrum:
    """Return the limit of the distribution of the *squared* singular values: the eigenvalues of ``M.T @ M``.

    Args:
        matrix: any matrix; for the rest see ``eigenvalues``.

    Returns:
        A ``Spectrum`` of squares; ``spectrum.root_density(s)`` is the density of the singular values themselves.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> U, W = p.matrix("U", n, n), p.matrix("W", n, n)
        >>> print(singular_values(U @ W, 10).equation)
        S**3*z**2 - S*z + 1 = 0

    Source: yang2020matrix; penson2011product.
    """
    return eigenvalues(Gram(matrix), order, values=values, data=data, budget=budget)


__all__ = ["Gram", "LinearMap", "eigenvalues", "excerpt", "is_symmetric", "moment_program", "moments", "scalar_limits",
           "singular_values", "within"]
