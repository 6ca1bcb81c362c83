"""Random programs for the limit engine: all that it has a rule for, in combinations nobody thought of.

Unlike ``random_program`` these are written as text, with numbers that are not generic: expectations vanish, vectors
are repeated, proportional or linearly dependent, covariances are singular. Vectors are of degree at most 3 in
Gaussians and coefficients at most 7/5, so that averages at width 2^16 tell their limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tensorprog.program.program import Program
from tensorprog.program.text import parse

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

#: Nonlinearities by the degree at which they grow; ``@`` is the argument.
BOUNDED = ("tanh(@)", "erf(@)", "sin(@)", "cos(@)", "gaussian(@)", "sigmoid(@)", "hard_tanh(@)", "sign(@)", "step(@)",
           "quantizer(@, 3)", "d_tanh(@)", "d_erf(@)", "1/(1 + @^2)")
LINEAR = ("relu(@)", "abs(@)", "leaky_relu(@, 1/5)", "gelu(@)", "softplus(@)", "silu(@)", "gelu_tanh(@)",
          "sqrt(1 + @^2)", "log(1 + @^2)", "power(1 + @^2, 1/3)")
SQUARE, CUBE = ("square(@)", "hermite(@, 2)", "monomial(@, 2)"), ("cube(@)", "hermite(@, 3)")
#: Those that are continuous and bounded, for scalars.
OF_SCALARS = ("tanh(@)", "erf(@)", "sin(@)", "cos(@)", "gaussian(@)", "sigmoid(@)", "hard_tanh(@)")
_DEGREES = ((BOUNDED, 0), (LINEAR, 1), (SQUARE, 2), (CUBE, 3))
_COEFFICIENTS = ("1", "-1", "1/2", "-3/4", "7/5", "11/13", "1/3")
_AXES = ((), (), (), (), ("m ~ 2*n",), ("m ~ 2/3*n",), ("m ~ 3/2*n", "l ~ 1/2*n"))
_PAIRS = ("N(0, [[1, 1/2], [1/2, 1]])", "N([0, 1/2], [[1, 1/3], [1/3, 1]])", "N(0, [[1, 1], [1, 1]])",
          "N(0, [[1, -1], [-1, 1]])", "N(0, [[1, 0], [0, 1/2]])", "N(0, [[1/4, 1/2], [1/2, 1]])")


def random_limit_program(rng: np.random.Generator, *, steps: int = 8) -> Program:
    """Return a random program, of order 1 up to a few scalars that vanish; its outputs are scalars.

    In it are nonlinearities of all kinds, matrices used again and transposed, rectangles, jointly Gaussian and
    degenerate vectors, constants, averages fed back, sums of n^(1/2), powers of n that cancel.

    Args:
        rng: a numpy Generator; the same state gives the same program.
        steps: operations, each of one line or a few.

    Example:
        >>> import numpy as np
        >>> p = random_limit_program(np.random.default_rng(0))
        >>> p == random_limit_program(np.random.default_rng(0)), 2 <= len(p.outputs) <= 7
        (True, True)
    """
    return parse(_Author(lambda k: int(rng.integers(k))).write(steps)).freeze()


def limit_programs(*, max_steps: int = 12) -> Any:
    """Return the Hypothesis strategy of the programs of ``random_limit_program``; it shrinks to few and simple lines.

    Example:
        >>> from hypothesis.strategies import SearchStrategy
        >>> isinstance(limit_programs(), SearchStrategy)
        True
    """
    from hypothesis import strategies as st

    @st.composite
    def written(draw) -> Program:
        author = _Author(lambda k: draw(st.integers(0, k - 1)))
        return parse(author.write(draw(st.integers(1, max_steps)))).freeze()

    return written()


class _Author:
    """Writes the text of a program from choices: ``choose(k)`` is a number below k, the simplest one 0."""

    def __init__(self, choose: Callable[[int], int]):
        self.choose, self.count = choose, 0
        axes = self.pick(_AXES)
        self.dims = ["n", *(a[0] for a in axes)]
        self.lines = ["dim n", *(f"dim {a}" for a in axes)]
        self.vectors: list[tuple[str, str, int]] = []  # name, axis, degree in Gaussians
        self.made: list[tuple[str, str, str, int]] = []  # with the expression
        self.scalars: list[tuple[str, int]] = []
        self.random: list[str] = []
        self.matrices = [(f"W{i + 1}", *self.shape(f"W{i + 1}")) for i in range(1 + choose(3))]
        for d in self.dims:
            if choose(2):
                law = "" if choose(2) else " ~ N(1/2, 3/4)"
                self.lines.append(f"vector x_{d} : {d}{law}")
                self.vectors.append((f"x_{d}", d, 1))
            else:
                self.lines.append(f"vector u_{d}, v_{d} : {d} ~ {self.pick(_PAIRS)}")
                self.vectors += [(f"u_{d}", d, 1), (f"v_{d}", d, 1)]
        if choose(5) == 4:
            self.lines += ["dim d = 3", "matrix U : n x d ~ N(0, 1/3)", "input xi : d = [1, -1/2, 3/2]"]
            self.vector("U @ xi", "n", 1)

    def shape(self, name: str) -> tuple[str, str]:
        """Write a matrix; return its axes."""
        rows, cols = self.pick(self.dims), self.pick(self.dims)
        law = self.pick(("", "", f" ~ N(0, 5/7/{cols})", f" ~ N(1/2/{cols}, 1/{cols})"))
        self.lines.append(f"matrix {name} : {rows} x {cols}{law}")
        return rows, cols

    def write(self, steps: int) -> str:
        """Return the program after so many operations."""
        operations = (
            *[self.multiply] * 5, *[self.returned] * 2, *[self.nonlinear] * 6, *[self.combine] * 2, self.product,
            *[self.average] * 2, self.again, self.shifted, self.centred, self.normalized, *[self.conditioned] * 2,
            self.attended, self.of_scalars, *[self.power] * 2, self.exponential, self.central_limit,
            self.tied_central_limit,
        )
        for _ in range(steps):
            self.pick(operations)()
        for x, _, k in self.vectors[-2:]:
            self.scalar(f"mean({x}*{x})" if k <= 2 else f"mean({x})", min(2 * k, 4))
        outputs = [s for s, _ in self.scalars[-5:]] + self.random[-2:]
        return "\n".join([*self.lines, "output " + ", ".join(outputs)])

    # ------------------------------------------------------------------------------------------ choices

    def pick(self, xs: Sequence[T]) -> T:
        """Return one of a list."""
        return xs[self.choose(len(xs))]

    def recent(self) -> tuple[str, str, int]:
        """Return a vector, more often than not one of the latest three."""
        latest = self.vectors[::-1]
        return self.pick(latest[:3] if self.choose(3) < 2 else latest)

    def pair(self) -> tuple[str, str, str, int, int]:
        """Return two vectors along one axis, perhaps the same: names, axis, degrees."""
        x, d, j = self.recent()
        y, _, k = self.pick([v for v in self.vectors[::-1] if v[1] == d])
        return x, y, d, j, k

    def number(self) -> str:
        """Return a coefficient."""
        return self.pick(_COEFFICIENTS)

    def name(self, expression: str) -> str:
        """Write a line; return its name."""
        self.count += 1
        self.lines.append(f"y{self.count} = {expression}")
        return f"y{self.count}"

    def vector(self, expression: str, dim: str, degree: int) -> None:
        """Write a vector."""
        name = self.name(expression)
        self.vectors.append((name, dim, degree))
        self.made.append((name, expression, dim, degree))

    def scalar(self, expression: str, degree: int) -> str:
        """Write a scalar of order 1."""
        name = self.name(expression)
        self.scalars.append((name, degree))
        return name

    # --------------------------------------------------------------------------------------- operations

    def multiply(self) -> None:
        """W @ x, W.T @ x, or W @ (a x + b y)"""
        x, y, d, j, k = self.pair()
        fits = [(w + t, to) for w, r, c in self.matrices for t, to, of in (("", r, c), (".T", c, r)) if of == d]
        if fits:
            matrix, to = self.pick(fits)
            together = self.choose(4) == 3
            inside = f"({self.number()}*{x} + {self.number()}*{y})" if together else x
            self.vector(f"{matrix} @ {inside}", to, max(j, k) if together else j)

    def returned(self) -> None:
        """W.T @ phi(W @ x), and its average with a vector of the same axis: what the dots are for"""
        x, d, k = self.recent()
        fits = [(w, t, to) for w, r, c in self.matrices for t, to, of in (("", r, c), (".T", c, r)) if of == d]
        if k <= 2 and fits:
            w, t, to = self.pick(fits)
            self.vector(f"{w}{t} @ {x}", to, k)
            inner = self.pick(("@", *LINEAR, *BOUNDED)).replace("@", self.vectors[-1][0])
            self.vector(f"{w}{'' if t else '.T'} @ ({inner})", d, k)
            other = self.pick([v for v, a, j in self.vectors[::-1] if a == d and j <= 2])
            self.scalar(f"mean({self.vectors[-1][0]}*{other})", min(2 * k, 4))

    def nonlinear(self) -> None:
        """phi(x), or phi(a x + b y + c)"""
        x, y, d, j, k = self.pair()
        if mixed := self.choose(3) == 2:
            x, j = f"({self.number()}*{x} + {self.number()}*{y} + {self.pick(('0', '1/2', '-1'))})", max(j, k)
        kinds = [(fns, g) for fns, g in _DEGREES if g * j <= 3 and not (mixed and g == 3)]
        fns, g = self.pick(kinds)
        self.vector(self.pick(fns).replace("@", x), d, g * j)

    def combine(self) -> None:
        """a x + b y"""
        x, y, d, j, k = self.pair()
        self.vector(f"{self.number()}*{x} + {self.number()}*{y}", d, max(j, k))

    def product(self) -> None:
        """x * y"""
        x, y, d, j, k = self.pair()
        if j + k <= 3:
            self.vector(f"{x}*{y}", d, j + k)

    def average(self) -> None:
        """mean(x * y), or the same by a sum"""
        x, y, d, j, k = self.pair()
        if j + k <= 4:
            self.scalar(self.pick((f"mean({x}*{y})", f"sum({x}*{y})/{d}")), j + k)

    def again(self) -> None:
        """A line that was there before."""
        if self.made:
            _, expression, d, k = self.pick(self.made[::-1])
            self.vector(expression, d, k)

    def shifted(self) -> None:
        """x + c"""
        x, d, k = self.recent()
        self.vector(f"{x} + {self.number()}", d, k)

    def centred(self) -> None:
        """x - mean(x)"""
        x, d, k = self.recent()
        self.vector(f"{x} - mean({x})", d, k)

    def normalized(self) -> None:
        """x over its root mean square"""
        x, d, k = self.recent()
        if k <= 2:
            self.vector(f"{x} / (mean({x}*{x}) + 1/3)^(1/2)", d, k)

    def conditioned(self) -> None:
        """phi(s) x, or phi(s x), or phi(x + s)"""
        if not self.scalars:
            return self.average()
        s, (x, d, k) = self.pick(self.scalars[::-1])[0], self.recent()
        fn = self.pick(OF_SCALARS).replace
        kind = self.choose(3)
        return self.vector((f"{fn('@', s)} * {x}", fn("@", f"({s}*{x})"), fn("@", f"({x} + {s})"))[kind], d,
                           0 if kind else k)

    def attended(self) -> None:
        """x and y weighted by a softmax of their products"""
        x, y, d, j, k = self.pair()
        if j + k <= 3 and j <= 2:
            s, t = self.scalar(f"mean({x}*{y})", j + k), self.scalar(f"mean({x}*{x})", 2 * j)
            self.vector(f"softmax_0({s}, {t})*{x} + softmax_1({s}, {t})*{y}", d, max(j, k))

    def of_scalars(self) -> None:
        """phi(s), or s r + c"""
        if not self.scalars:
            return self.average()
        (s, j), (r, k) = self.pick(self.scalars[::-1]), self.pick(self.scalars[::-1])
        if j + k <= 4 and self.choose(2):
            self.scalar(f"{s}*{r} + {self.number()}", j + k)
        else:
            self.scalar(self.pick(OF_SCALARS).replace("@", s), 0)
        return None

    def power(self) -> None:
        """Powers of n that cancel, and terms that vanish."""
        x, y, d, j, k = self.pair()
        text, degree = self.pick((
            (f"{x} + n^(-1/2)*{y}", max(j, k)),
            (f"n^(-1/2)*({x} + n^(1/2)*{y})", max(j, k)),
            (f"n^(1/2)*({x} - 1/2*{y}) / n^(1/2)", max(j, k)),
            (f"n^(1/2)*tanh(n^(-1/2)*{x})", j),
            (f"relu(n^(1/2)*{x}) / n^(1/2)", j),
        ))
        if degree <= 3:
            self.vector(text, d, degree)

    def exponential(self) -> None:
        """exp of something of degree 1"""
        x, d, k = self.recent()
        if k <= 1:
            self.vector(f"exp({self.pick(('-1/4', '1/3'))}*{x})", d, 2)

    def central_limit(self) -> None:
        """v . x / sqrt(n) with one v that nothing else depends on, or a fresh one"""
        x, d, k = self.recent()
        if k <= 2:
            if f"vector r_{d} : {d}" not in self.lines:
                self.lines.append(f"vector r_{d} : {d}")
            self.random.append(self.name(f"sum(r_{d}*{x}) / {d}^(1/2)"))

    def tied_central_limit(self) -> None:
        """u . W v / sqrt(n), u an initial vector: outside the theory if v depends on u"""
        w, r, c = self.pick(self.matrices)
        left = [v for v, d, _ in self.vectors if d == r and v[0] in "uvx"]
        right = [v for v, d, k in self.vectors if d == c and k <= 2]
        self.random.append(self.name(f"sum({self.pick(left)} * ({w} @ {self.pick(right)})) / {r}^(1/2)"))
