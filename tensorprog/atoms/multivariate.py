"""Functions of several arguments: components of softmax, and a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorprog.atoms.function import Function
from tensorprog.atoms.smooth import differentiate
from tensorprog.errors import NotCoveredError, RecordError
from tensorprog.exponents.affine import Values


class AbstractMultivariate(Function):
    """What all functions of several arguments share: generic under sign flips and rescaling."""

    __slots__ = ()

    @property
    def parity(self) -> str | None:
        """None: no symmetry under a flip of all arguments is claimed."""
        return None

    @property
    def degree(self):
        """None: not homogeneous."""
        return None

    @property
    def value_at_zero_nonzero(self) -> bool:
        """Whether the value at zero arguments is not 0."""
        return bool(self.evaluate({}, {}, *(np.zeros(1) for _ in range(self.arity)))[0] != 0)


@dataclass(frozen=True, slots=True)
class Softmax(AbstractMultivariate):
    """``exp(x_index) / sum_j exp(x_j)`` of k arguments, or one of its partial derivatives.

    With s_i the components, ``d s_i / d x_j = s_i (delta_ij - s_j)``: every derivative is a polynomial in them.

    Args:
        k: the number of arguments.
        index: which component.
        order: the arguments by which it has been differentiated, in ascending order.

    Raises:
        RecordError: ``index`` or an entry of ``order`` is not in range(k).

    Example:
        >>> s = Softmax(3, 0)
        >>> s.evaluate({}, {}, 0.0, 0.0, 0.0) == 1 / 3, s.spelled("x", "y", "z")
        (True, 'softmax_0(x, y, z)')
        >>> round(s.partial(1).evaluate({}, {}, 0.0, 0.0, 0.0), 12), s.partial(1).name
        (-0.111111111111, 'd1_softmax_0')
    """

    k: int
    index: int
    order: tuple[int, ...] = ()

    def __post_init__(self):
        bad = [i for i in (self.index, *self.order) if not 0 <= i < self.k]
        if bad:
            raise RecordError(self.name, bad[0], f"softmax has {self.k} components", f"count from 0 to {self.k - 1}")
        object.__setattr__(self, "order", tuple(sorted(self.order)))

    @property
    def name(self) -> str:
        """``softmax_i``, and ``d1_2_softmax_i`` for its derivative by arguments 1 and 2."""
        return f"d{'_'.join(map(str, self.order))}_softmax_{self.index}" if self.order else f"softmax_{self.index}"

    @property
    def arity(self) -> int:
        """As many arguments as components."""
        return self.k

    @property
    def has_slopes(self) -> bool:
        """Smooth: the partial derivatives hold everywhere."""
        return True

    def evaluate(self, sizes: Mapping[str, int], values: Values, *args):
        """Return the value at arrays or floats of one shape; no overflow at any argument."""
        x = np.stack(np.broadcast_arrays(*args))
        e = np.exp(x - x.max(axis=0))
        s = e / e.sum(axis=0)
        total = 0 * s[0]
        for monomial, coef in self._terms().items():
            y = coef * np.ones_like(s[0])
            for letter in monomial:
                y = y * s[ord(letter)]
            total = total + y.astype(s.dtype)
        return total if np.ndim(total) else float(total)

    def _terms(self) -> dict[str, float]:
        # Component j is the letter chr(j): s_i' by x_j is s_i [i = j] - s_i s_j.
        terms: Mapping = {chr(self.index): 1}
        for j in self.order:
            terms = differentiate(terms, {chr(i): _slope(i, j) for i in range(self.k)})
        return {m: float(c) for m, c in terms.items()}

    def partial(self, i: int) -> Softmax | None:
        """Return the derivative by argument i, a function of the same arguments; None if k = 1 (softmax is 1)."""
        return Softmax(self.k, self.index, (*self.order, i)) if self.k > 1 else None

    def expression(self, *args):
        """Return the sympy expression at k symbols."""
        import sympy

        symbols = sympy.symbols(f"x:{self.k}", real=True)
        expr = sympy.exp(symbols[self.index]) / sympy.Add(*(sympy.exp(s) for s in symbols))
        for j in self.order:
            expr = expr.diff(symbols[j])
        return expr.subs(dict(zip(symbols, args, strict=True)), simultaneous=True)


def _slope(i: int, j: int) -> dict[str, int]:
    pair = "".join(sorted((chr(i), chr(j))))
    return {chr(i): 1, pair: -1} if i == j else {pair: -1}


@dataclass(frozen=True, slots=True)
class Multivariate(AbstractMultivariate):
    """A user's function of several arguments; build it with ``from_sympy`` or ``from_callable``.

    Args:
        name: the name in listings; programs with it do not round-trip through the text form.
        arity: the number of arguments.
        fn: arrays of one shape to an array of that shape.
        derive: i -> the partial derivative by argument i, None if identically zero.
        formula: symbols -> its sympy expression; None if it has none.
        key: what tells it from another function of the same name.
        has_slopes: whether the partial derivatives hold everywhere (False with kinks).

    Raises:
        RecordError: a partial derivative disagrees with finite differences (when it is first asked for), or the
            values are not finite at points of (0, 4)^arity.
    """

    name: str
    arity: int
    fn: Callable = field(compare=False, repr=False)
    derive: Callable[[int], Multivariate | None] = field(compare=False, repr=False)
    formula: Callable | None = field(default=None, compare=False, repr=False)
    key: Any = field(default=None, repr=False)
    has_slopes: bool = False

    def __post_init__(self):
        y = self.evaluate({}, {}, *_points(self.arity))
        if np.shape(y) != (_COUNT,) or not np.all(np.isfinite(y)):
            raise RecordError(f"function {self.name!r}", y, "not finite at points of (0, 4), or of another shape",
                              "return one finite value a coordinate")

    def evaluate(self, sizes: Mapping[str, int], values: Values, *args):
        """Return the value at arrays or floats; the result has the dtype of the arguments."""
        if all(np.ndim(a) == 0 for a in args):
            return float(np.asarray(self.fn(*(np.full(1, a, float) for a in args)))[0])
        args = np.broadcast_arrays(*args)
        return np.asarray(self.fn(*args)).astype(np.result_type(*args), copy=False)

    def partial(self, i: int) -> Multivariate | None:
        """Return the derivative by argument i; raises RecordError if it disagrees with finite differences."""
        made = self.derive(i)
        x = _points(self.arity)
        told = np.zeros(_COUNT) if made is None else made.evaluate({}, {}, *x)
        seen = _difference(self.fn, i, x)
        if not np.allclose(told, seen, rtol=1e-5, atol=1e-6 * max(1.0, float(np.max(np.abs(seen))))):
            raise RecordError(f"function {self.name!r}", told,
                              f"derivative {i} disagrees with finite differences {seen}", "correct it")
        return made

    def expression(self, *args):
        """Return the sympy expression at these symbols; raises NotCoveredError if the function has none."""
        if self.formula is None:
            raise NotCoveredError(self.name, self.name, "this function has no formula", "build it with from_sympy")
        return self.formula(*args)

    def __reduce__(self):
        make, *args = self.key
        return make, tuple(args)

    @staticmethod
    def from_sympy(formula, symbols, name: str = "f") -> Multivariate:
        """Return a function from a sympy expression in the given symbols, in the order of the arguments.

        Raises:
            RecordError: the expression has other symbols, or numpy cannot evaluate it.

        Example:
            >>> import sympy
            >>> x, y = sympy.symbols("x y")
            >>> gate = Multivariate.from_sympy(x * sympy.tanh(y), (x, y), "gate")
            >>> gate.arity, gate.value_at_zero_nonzero, round(gate.partial(0).evaluate({}, {}, 5.0, 1.0), 6)
            (2, False, 0.761594)
        """
        import sympy

        from tensorprog.atoms.custom import compiled, derivative_of

        symbols = tuple(symbols)
        if not isinstance(formula, sympy.Expr) or formula.free_symbols - set(symbols):
            raise RecordError(f"function {name!r}", formula, f"not an expression in {', '.join(map(str, symbols))}",
                              "list every symbol, in the order of the arguments")
        reals = sympy.symbols(f"x:{len(symbols)}", real=True)
        expr = formula.subs(dict(zip(symbols, reals, strict=True)), simultaneous=True)
        kinked = expr.has(sympy.Abs, sympy.sign, sympy.Heaviside, sympy.Max, sympy.Min, sympy.Piecewise, sympy.floor)

        def derive(i: int) -> Multivariate | None:
            slope = derivative_of(expr, reals[i])
            return None if slope.is_zero else Multivariate.from_sympy(slope, reals, f"d{i}_{name}")

        return Multivariate(name, len(symbols), compiled(reals, expr, name), derive,
                            lambda *args: expr.subs(dict(zip(reals, args, strict=True)), simultaneous=True),
                            (Multivariate.from_sympy, expr, reals, name), not kinked)

    @staticmethod
    def from_callable(fn: Callable, arity: int, name: str = "f", *, partials: tuple[Callable, ...] | None = None,
                      ) -> Multivariate:
        """Return a function from a numpy function of ``arity`` arrays.

        Args:
            partials: its derivatives by each argument, likewise; if absent, central differences (error near 1e-11).
                Second derivatives are differences in any case, third ones are not offered.

        Example:
            >>> f = Multivariate.from_callable(lambda x, y: x * y**2, 2, "xyy")
            >>> round(f.partial(1).evaluate({}, {}, 3.0, 2.0), 8)
            12.0
        """
        return _from_callable(fn, arity, name, partials, 0)


def _from_callable(fn, arity: int, name: str, partials, order: int) -> Multivariate:
    def derive(i: int) -> Multivariate:
        if order >= 2:
            raise NotCoveredError(name, i, "differences of this order are noise", "build it with from_sympy")
        # A function is told from another by its callable: a bound difference is a value of its own.
        slope = partials[i] if partials is not None else Slope(fn, i)
        return _from_callable(slope, arity, f"d{i}_{name}", None, order + 1)

    return Multivariate(name, arity, fn, derive, None, (_from_callable, fn, arity, name, partials, order))


_COUNT = 7


def _points(arity: int) -> list[np.ndarray]:
    # A low-discrepancy set in (0, 4): functions may be undefined for negative arguments.
    step = np.arange(1, _COUNT + 1)
    return [4 * np.modf(step * r)[0] + 0.05 for r in np.sqrt([2, 3, 5, 7, 11, 13, 17, 19])[np.arange(arity) % 8]
            + 0.1 * (np.arange(arity) // 8)]


@dataclass(frozen=True, slots=True)
class Slope:
    """The derivative of ``fn`` by argument i, by central differences of order 6."""

    fn: Callable
    i: int

    def __call__(self, *args: np.ndarray) -> np.ndarray:
        return _difference(self.fn, self.i, args)


def _difference(fn: Callable, i: int, args) -> np.ndarray:
    h, args = 2e-3, [np.asarray(a, float) for a in args]
    total = np.zeros(())
    for k, w in zip((-3, -2, -1, 1, 2, 3), (-1, 9, -45, 45, -9, 1), strict=True):
        total = total + w * np.asarray(fn(*args[:i], args[i] + k * h, *args[i + 1:]))
    return total / (60 * h)
