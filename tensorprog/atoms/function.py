"""What a ``Nonlin`` line applies: a coordinatewise function of vectors and scalars."""

from __future__ import annotations

from collections.abc import Mapping

from tensorprog.exponents.affine import Values


class Function:
    """Abstract: ``arity`` arguments in, one value out, coordinate by coordinate.

    Concrete functions are frozen values: unary records (``Nonlinearity``), polynomials (``Poly``), functions of
    several arguments (``Multivariate``) and increments (``Diff``).
    """

    __slots__ = ()

    name: str
    arity: int

    def evaluate(self, sizes: Mapping[str, int], values: Values, *args):
        """Return the value at numpy arrays (or floats) ``args``; ``sizes`` and ``values`` fix powers of dimensions."""
        raise NotImplementedError

    def partial(self, i: int) -> Function | None:
        """Return the derivative by argument ``i``, of the same arguments; None if it is identically zero."""
        raise NotImplementedError

    def spelled(self, *args: str) -> str:
        """Return the application to ``args`` in the text form."""
        return f"{self.name}({', '.join(args)})"
