"""Unary nonlinearities as frozen records that check themselves when they are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from tensorprog.atoms import facts
from tensorprog.atoms.function import Function
from tensorprog.atoms.pieces import Growth, Pieces
from tensorprog.errors import NotCoveredError
from tensorprog.exponents.affine import Values

Parity = Literal["odd", "even"] | None
Domain = Literal["real", "nonzero", "positive", "nonnegative"]


@dataclass(frozen=True, slots=True)
class Nonlinearity(Function):
    """A function of one real argument and the local facts about it; wrong facts are refused.

    Args:
        name: the family's name and its parameters, as ``nonlinearity`` looks it up: "tanh", "hermite(3)", "d_tanh".
        numpy: its value at an array of floats.
        slope: the value of its derivative almost everywhere; None: it is identically zero.
        derivative: the derivative as a record, made when asked for; a name to look up, or None like ``slope``.
        sympy: its expression at a sympy symbol; None if it has none.
        parity: "odd", "even" or None.
        degree: ``phi(c x) = c^degree phi(x)`` for c > 0; None if it is not homogeneous.
        taylor: whether the k-th Taylor coefficient at 0 is nonzero, k = 0, ..., 6; None if not smooth at 0.
        infinity: ``phi(c x) / c^infinity`` converges to a nonzero function as c -> oo; None if there is no such power.
        kinks: the points where it is not smooth; ``jumps``: those where it is not continuous (there the derivative
            almost everywhere is not the weak one).
        domain: where it is defined: "real", "nonzero", "positive", or "nonnegative" (also at 0).
        sources: keys into docs/refs.bib.
        params: the exact parameters of its family.
        scale: the size of the arguments at which it shows what it is, and is checked (eps, for 1/sqrt(x + eps)).
        pieces: its decomposition into polynomials, exponentials and gates (``atoms.pieces``), by which its Gaussian
            expectations are found in closed form; None if it has none.
        key: what tells it from another function of the same name, for functions that are not registered.

    Raises:
        RecordError: a fact contradicts the values of ``numpy`` (naming the point), or there is no source.

    Example:
        >>> from tensorprog.atoms.registry import nonlinearity
        >>> relu = nonlinearity("relu")
        >>> relu.degree, relu.partial(0).name, relu.partial(0).partial(0), relu.spelled("W x")
        (Fraction(1, 1), 'step', None, 'relu(W x)')
        >>> relu.evaluate({}, {}, -2.0)
        0.0
    """

    name: str
    numpy: Callable[[np.ndarray], np.ndarray] = field(compare=False)
    slope: Callable[[np.ndarray], np.ndarray] | None = field(compare=False)
    derivative: str | Callable[[], Nonlinearity | None] | None = field(compare=False, repr=False)
    parity: Parity = None
    degree: Fraction | None = None
    taylor: tuple[bool, ...] | None = None
    infinity: Fraction | None = None
    kinks: tuple[Fraction, ...] = ()
    jumps: tuple[Fraction, ...] = ()
    domain: Domain = "real"
    sources: tuple[str, ...] = ()
    params: tuple[Fraction, ...] = ()
    scale: Fraction = Fraction(1)
    sympy: Callable[[Any], Any] | None = field(default=None, compare=False, repr=False)
    pieces: Pieces | None = field(default=None, compare=False, repr=False)
    key: Any = field(default=None, repr=False)
    _made: list = field(default_factory=list, init=False, compare=False, repr=False)

    def __post_init__(self):
        facts.check(self)

    @property
    def arity(self) -> int:
        """One argument."""
        return 1

    @property
    def family(self) -> str:
        """The name without parameters."""
        return self.name.partition("(")[0]

    @property
    def has_slopes(self) -> bool:
        """Whether ``partial`` is the derivative at every point that is not a kink: always."""
        return True

    @property
    def growth(self) -> Growth:
        """How fast it grows at infinity: "polynomial", "exponential" (at most exp(C |x|)) or "faster".

        >>> [Nonlinearity.from_callable(f, f.__name__).growth for f in (np.sin, np.sinh)]
        ['polynomial', 'exponential']
        """
        return facts.growth(self)

    @property
    def value_at_zero_nonzero(self) -> bool:
        """Whether ``phi(0) != 0``; False where it is not defined at 0."""
        return self.domain in ("real", "nonnegative") and self.evaluate({}, {}, 0.0) != 0.0

    def __call__(self, x):
        """Return the value at an array or a number; the dtype stays."""
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            y = self.numpy(x)
            return y if y.dtype == x.dtype else y.astype(x.dtype)
        if isinstance(x, np.ndarray):
            return self.numpy(x.astype(float))
        if isinstance(x, np.floating) and not isinstance(x, float):
            return x.dtype.type(self.numpy(np.asarray(x))[()])
        return float(self.numpy(np.asarray(float(x))))

    def evaluate(self, sizes: Mapping[str, int], values: Values, *args):
        """Return the value at one array or number; ``sizes`` and ``values`` are not used."""
        (x,) = args
        return self(x)

    def partial(self, i: int = 0) -> Nonlinearity | None:
        """Return the derivative (almost everywhere) as a record, None if it is identically zero.

        Raises:
            RecordError: the derivative contradicts ``slope``.
            NotCoveredError: derivatives of this order are not known.
        """
        if self.derivative is None:
            return None
        if not self._made:
            made = self.derivative() if callable(self.derivative) else _look_up(self.derivative)
            facts.check_derivative(self, made)
            self._made.append(made)
        return self._made[0]

    def expression(self, x):
        """Return the sympy expression ``phi(x)``; raises NotCoveredError if the record has none."""
        if self.sympy is None:
            raise NotCoveredError(f"{self.name}(x)", self.name, "this function has no formula",
                                  "build it with Nonlinearity.from_sympy, or evaluate numerically")
        return self.sympy(x)

    def spelled(self, *args: str) -> str:
        """Return the application in the text form; parameters follow the argument: ``hermite(x, 3)``."""
        return f"{self.family}({', '.join([*args, *map(str, self.params)])})"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self):
        if self.key is not None:
            make, *args = self.key
            return make, tuple(args)
        return _look_up, (self.name,)

    @staticmethod
    def from_sympy(formula, name: str, *, sources: tuple[str, ...] = ("user",)) -> Nonlinearity:
        """Return a nonlinearity from a sympy expression in one symbol, or a callable of a symbol.

        Facts (parity, degree, Taylor coefficients, growth) are found from the values and the formula; derivatives of
        every order are those of the formula. No registration is needed.

        Raises:
            RecordError: the expression has not exactly one symbol, or is not a real function on any domain.

        Example:
            >>> import sympy
            >>> mish = Nonlinearity.from_sympy(lambda x: x * sympy.tanh(sympy.log(1 + sympy.exp(x))), "mish")
            >>> mish.infinity, mish.parity, mish.partial(0).name, round(mish(1.0), 6)
            (Fraction(1, 1), None, 'd_mish', 0.865098)
        """
        from tensorprog.atoms import custom

        return custom.from_sympy(formula, name, sources=sources)

    @staticmethod
    def from_callable(fn: Callable, name: str, *, derivative: Callable | None = None,
                      kinks: tuple[Fraction, ...] = (), sources: tuple[str, ...] = ("user",)) -> Nonlinearity:
        """Return a nonlinearity from a numpy function; facts are found from its values.

        Args:
            fn: array of floats to array of floats of the same shape, coordinate by coordinate.
            derivative: its derivative likewise. If absent: central differences on 11 points (error near 1e-13
                for the first derivative, 1e-8 for the third and last; wrong within 0.025 of a kink).
            kinks: points where it is not smooth, so that checks and quadrature avoid them; slopes that jump at
                multiples of 1/4 between -8 and 8 are found.

        Raises:
            RecordError: the values are not finite, or ``derivative`` contradicts them.

        Example:
            >>> import numpy as np
            >>> bump = Nonlinearity.from_callable(lambda x: x / (1 + x * x), "bump")
            >>> bump.parity, bump.infinity, round(bump.partial(0)(0.0), 9)
            ('odd', Fraction(-1, 1), 1.0)
        """
        from tensorprog.atoms import custom

        return custom.from_callable(fn, name, derivative=derivative, kinks=kinks, sources=sources)


def _look_up(name: str) -> Nonlinearity:
    from tensorprog.atoms.registry import nonlinearity

    return nonlinearity(name)
