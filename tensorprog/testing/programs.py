"""Random programs whose lines all stay finite at any width and whose sizes follow the exponents of the calculus."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tensorprog.program.build import Matrix, Scalar, Vector, apply
from tensorprog.program.dims import Dim
from tensorprog.program.program import Program

if TYPE_CHECKING:
    import numpy as np

#: Nonlinearities of random programs: odd and even ones that keep coordinates of order 1, those of a growth of at most 1
#: that never vanish, and those that vanish, or decay, on one side.
ODD, EVEN = ("tanh", "sin", "erf", "hard_tanh", "sign"), ("cos", "gaussian")
TWO_SIDED, ONE_SIDED = ("leaky_relu", "abs"), ("relu", "gelu", "sigmoid", "softplus", "silu")
#: Coefficients, variances and covariances are ratios of different primes: no expectation vanishes, or nearly so, for
#: their sake.
_COEFFICIENTS = tuple(Fraction(x) for x in ("7/5", "11/13", "37/31", "-53/17"))
_VARIANCES = tuple(Fraction(x) for x in ("43/41", "53/47", "59/61", "71/67"))
_COVARIANCES = tuple(Fraction(x) for x in ("0", "31/73", "-29/79"))

def random_program(rng: np.random.Generator, *, steps: int = 8, matrices: int = 3, sublinear: bool = True,
                   powers: bool = False) -> Program:
    """Return a random well-typed program whose lines all stay finite at any width.

    Its numbers are generic: sizes grow with the exponents of the calculus, for none of its expectations vanishes by an
    accident of constants, as that of ``x*x - 1`` does for a standard Gaussian, or ``relu(-x*x)``.

    Args:
        rng: a numpy Generator; the same state gives the same program.
        steps: operations, each of one line or a few.
        matrices: at most so many random matrices, used with their transposes.
        sublinear: whether an axis of growth 1/2 may occur.
        powers: whether coefficients may be n^(1/2) and n^(-1/2).

    Example:
        >>> import numpy as np
        >>> p = random_program(np.random.default_rng(3), steps=5)
        >>> p == random_program(np.random.default_rng(3), steps=5), len(p.outputs) > 0
        (True, True)
    """
    return _Author(lambda k: int(rng.integers(k)), matrices, sublinear, powers).write(steps)


def programs(*, max_steps: int = 10, matrices: int = 3, sublinear: bool = True, powers: bool = False) -> Any:
    """Return the Hypothesis strategy of the programs of ``random_program``; it shrinks to few and simple lines.

    Example:
        >>> from hypothesis import find
        >>> len(find(programs(), lambda p: len(p.outputs) > 0).lines) < 8
        True
    """
    from hypothesis import strategies as st

    @st.composite
    def written(draw) -> Program:
        author = _Author(lambda k: draw(st.integers(0, k - 1)), matrices, sublinear, powers)
        return author.write(draw(st.integers(1, max_steps)))

    return written()


class _Author:
    """Writes a program from choices: ``choose(k)`` is a number below k, the simplest one 0."""

    def __init__(self, choose: Callable[[int], int], matrices: int, sublinear: bool, powers: bool):
        self.choose, self.powers = choose, powers
        p = self.program = Program()
        self.dims = [
            p.dim("n"),
            *[p.dim("m", factor=2)] * (choose(3) > 0),
            *[p.dim("h", growth="1/2")] * (sublinear and choose(3) == 2),
        ]
        self.matrices = [self.matrix(f"W{i + 1}", self.pick(self.dims), self.pick(self.dims))
                         for i in range(1 + choose(matrices))]
        # vectors whose coordinates take both signs at any width: functions may vanish on one side
        self.signed: set[str] = set()
        self.applied: set[tuple[str, bool]] = set()
        # with each vector and scalar the degree of its growth in its inputs: products keep it small
        self.vectors: list[tuple[Vector, int]] = []
        self.scalars: list[tuple[Scalar, int]] = []
        for d in self.dims:
            if choose(3) == 2:
                both = self.pick(_COVARIANCES)
                pair = p.vectors(f"u_{d.name} v_{d.name}", d,
                                 covariance=[[self.pick(_VARIANCES), both], [both, self.pick(_VARIANCES)]])
                self.vectors += [(x, 1) for x in pair]
            else:
                self.vectors.append((p.vector(f"x_{d.name}", d, variance=self.pick(_VARIANCES)), 1))
        self.signed |= {x.name for x, _ in self.vectors}

    def matrix(self, name: str, rows: Dim, cols: Dim) -> Matrix:
        """Return a random matrix whose rows have length of order 1."""
        return self.program.matrix(name, rows, cols, variance=self.pick(_VARIANCES) / cols)

    def pick(self, xs):
        """Return one of a list."""
        return xs[self.choose(len(xs))]

    def write(self, steps: int) -> Program:
        """Return the program after so many operations, its scalars the outputs."""
        operations = (
            self.multiply,
            self.multiply,
            self.nonlinear,
            self.nonlinear,
            self.combine,
            self.product,
            self.moment,
            self.scaled,
            self.scalar_function,
        )
        for i in range(steps):
            made = self.pick(operations)()
            if made is None:
                continue
            value, degree, *signed = made
            value = self.program.let(f"y{i + 1}", value)
            if isinstance(value, Vector):
                self.vectors.append((value, degree))
                self.signed |= {value.name} if any(signed) else set()
            elif isinstance(value, Scalar):
                self.scalars.append((value, degree))
        last = self.vectors[-1][0]
        self.program.output(self.program.let("q", self.program.mean(last * last)), *(s for s, _ in self.scalars))
        return self.program

    def number(self) -> Fraction:
        """Return a small coefficient."""
        return self.pick(_COEFFICIENTS)

    def along(self, dim: Dim) -> list[tuple[Vector, int]]:
        """Return the vectors along an axis, the latest first."""
        return [(x, k) for x, k in reversed(self.vectors) if x.dim == dim]

    def multiply(self):
        """W @ x or W.T @ x"""
        x, k = self.pick(self.vectors[::-1])
        fits = [(w.T if flip else w, w.name, flip) for w in self.matrices for flip in (False, True)
                if (w.rows if flip else w.cols) == x.dim]
        if not fits:
            return None
        matrix, name, flip = self.pick(fits)
        self.applied.add((name, flip))
        # the transpose never applied, the product is Gaussian; else it may be mostly what the transpose was applied to
        return matrix @ x, k, x.name in self.signed or (name, not flip) not in self.applied

    def nonlinear(self):
        """phi(x)"""
        x, k = self.pick(self.vectors[::-1])
        signed = x.name in self.signed
        family = self.pick([ODD, EVEN, TWO_SIDED, *[ONE_SIDED] * 2 * signed])
        return apply(self.pick(family), x), 0 if family in (ODD, EVEN) else k, signed and family is ODD

    def combine(self):
        """a x + b y"""
        x, j = self.pick(self.vectors[::-1])
        y, k = self.pick(self.along(x.dim))
        return self.number() * x + self.power() * y, max(j, k), {x.name, y.name} <= self.signed

    def power(self):
        """A coefficient, perhaps a power of n"""
        half = self.pick([Fraction(0), Fraction(-1, 2), Fraction(1, 2)]) if self.powers else Fraction(0)
        return self.dims[0] ** half * self.number()

    def product(self):
        """x * y"""
        x, j = self.pick(self.vectors[::-1])
        y, k = self.pick(self.along(x.dim))
        return (x * y, j + k) if j + k <= 3 else None

    def moment(self):
        """mean(x * y), or the sum over the square root of the size"""
        x, j = self.pick(self.vectors[::-1])
        y, k = self.pick(self.along(x.dim))
        if j + k > 4:
            return None
        if self.choose(3) < 2:
            return self.program.mean(x * y), j + k
        return self.program.sum(x * y) / x.dim ** (1 if not self.powers else Fraction(1, 2)), j + k

    def scaled(self):
        """phi(s) * x, the scalar conditioned on"""
        if not self.scalars:
            return self.moment()
        s, _ = self.pick(self.scalars[::-1])
        x, k = self.pick(self.vectors[::-1])
        return apply(self.pick(ODD + EVEN), s) * x, k

    def scalar_function(self):
        """phi(s), or s * r"""
        if not self.scalars:
            return self.moment()
        s, j = self.pick(self.scalars[::-1])
        r, k = self.pick(self.scalars[::-1])
        return (s * r + self.number(), j + k) if self.choose(2) and j + k <= 4 else (apply(self.pick(ODD + EVEN), s), 0)
