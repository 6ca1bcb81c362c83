"""Writing programs that know exact zeros: what transformations of programs emit their lines with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from tensorprog.exponents.scale import ONE, Scale
from tensorprog.program.instructions import (
    Constant,
    Input,
    MatMul,
    Moment,
    Nonlin,
    Type,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program

#: A product ``coef * prod(factors)``.
Product = tuple[Scale, tuple[str, ...]]

NOUGHT = Scale(Fraction(0))


class Emitter:
    """Appends lines to a program; ``None`` stands for the exact zero and never becomes a line."""

    def __init__(self, program: Program):
        self.program = program
        self._constants: dict[tuple, str] = {}

    def matmul(self, out: str, matrix: str, vector: str | None, transposed: bool = False) -> str | None:
        """Emit ``out = matrix @ vector``."""
        return None if vector is None else self.program.add(MatMul(out, matrix, vector, transposed))

    def poly(self, out: str, products: Iterable[Product]) -> str | None:
        """Emit ``out = sum of products``; a single variable is returned as it is, without a line."""
        products = [(c, f) for c, f in products if not c.is_zero]
        return self._poly(out, products) if products else None

    def _poly(self, out: str, products: Sequence[Product]) -> str:
        if len(products) == 1 and products[0][0] == ONE and len(products[0][1]) == 1:
            return products[0][1][0]
        args = tuple(dict.fromkeys(f for _, factors in products for f in factors))
        where = {a: i for i, a in enumerate(args)}
        terms = []
        for coef, factors in products:
            powers = [0] * len(args)
            for f in factors:
                powers[where[f]] += 1
            terms.append((coef, tuple(powers)))
        return self.program.add(Nonlin(out, Poly(len(args), tuple(terms)), args))

    def total(self, out: str, parts: Sequence[str | None]) -> str | None:
        """Emit the sum of variables."""
        return self.poly(out, [(ONE, (p,)) for p in parts if p is not None])

    def nonlin(self, out: str, fn, args: Sequence[str | None], types: Sequence[Type]) -> str:
        """Emit ``out = fn(args)``, zeros spelled out."""
        given = tuple(self.constant(t, NOUGHT) if a is None else a for a, t in zip(args, types, strict=True))
        return self.program.add(Nonlin(out, fn, given))

    def moment(self, out: str, factors: Sequence[str | None], mean: bool) -> str | None:
        """Emit ``out = mean (or sum) of the product of factors``."""
        present = tuple(f for f in factors if f is not None)
        return None if len(present) < len(factors) else self.program.add(Moment(out, present, mean))

    def inner(self, out: str, factors: Sequence[str], mean: bool) -> str:
        """Emit the contraction of a product in which some factors are scalars."""
        vectors = [f for f in factors if isinstance(self.program.type_of(f), VectorType)]
        scalars = tuple(f for f in factors if f not in vectors)
        name = out if not scalars else f"{out}.sum"
        s = self.program.add(Moment(name, tuple(vectors), mean))
        return s if not scalars else self._poly(out, [(ONE, (s, *scalars))])

    def constant(self, t: Type, value: Scale) -> str:
        """Return the constant vector or scalar of this value, emitted once."""
        axis = t.dim.name if isinstance(t, VectorType) else "scalar"
        key = (axis, value)
        if key not in self._constants:
            name = f"const.{axis}.{value.number}"
            self._constants[key] = self.program.add(Input(name, t, Constant(value)))
        return self._constants[key]
