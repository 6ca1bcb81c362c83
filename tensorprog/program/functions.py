"""The functions that a program can name: registered nonlinearities, softmax, their derivatives and increments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tensorprog.atoms.function import Function
from tensorprog.errors import ParseError, TensorProgError

_SOFTMAX = re.compile(r"(?:d([0-9]{1,3}(?:_[0-9]{1,3}){0,5})_)?softmax_([0-9]{1,3})")


def nonlinearity(name: str, *params) -> Function:
    """Return the registered nonlinearity of a name, perhaps with exact parameters."""
    from tensorprog.atoms import registry

    return registry.nonlinearity(name, *params)


def is_function(name: str) -> bool:
    """Return whether ``function_named`` knows a name, loading no record."""
    from tensorprog.atoms import registry

    plain = name.removeprefix("diff_")
    return registry.is_nonlinearity(plain) or _SOFTMAX.fullmatch(plain) is not None


def split(name: str, args: Sequence) -> tuple[Sequence, Sequence]:
    """Return the arguments of a call and the parameters after them, which only functions of one argument have."""
    from tensorprog.atoms import registry

    arity = 2 if name.startswith("diff_") else 1
    return (args[:arity], args[arity:]) if registry.is_nonlinearity(name.removeprefix("diff_")) else (args, ())


def function_named(name: str, arity: int, *params) -> Function:
    """Return the function that ``name`` is when applied to ``arity`` variables.

    ``softmax_0`` is a component of softmax, ``d1_softmax_0`` its derivative by argument 1, ``diff_tanh(x, dx)`` the
    increment ``tanh(x + dx) - tanh(x)``; every other name is looked up in ``atoms.registry``.

    Raises:
        ParseError: there is no function of that name.

    Example:
        >>> function_named("diff_softmax_1", 6).spelled("x", "y", "z", "dx", "dy", "dz")
        'diff_softmax_1(x, y, z, dx, dy, dz)'
    """
    if name.startswith("diff_"):
        from tensorprog.atoms.diff import Diff

        return Diff(function_named(name.removeprefix("diff_"), max(arity // 2, 1), *params))
    if found := _SOFTMAX.fullmatch(name):
        from tensorprog.atoms.multivariate import Softmax

        index, order = int(found[2]), tuple(map(int, found[1].split("_"))) if found[1] else ()
        if any(i >= arity for i in (index, *order)):
            raise ParseError(name, str(arity), f"{name} of {arity} arguments: components count from 0",
                             f"use softmax_0 to softmax_{arity - 1}")
        return Softmax(arity, index, order)
    return nonlinearity(name, *params)


def power(k: Fraction) -> Function:
    """Return ``x -> x^k`` for a power that is not a positive whole number."""
    special = {Fraction(1, 2): "sqrt", Fraction(-1): "reciprocal"}.get(k)
    return nonlinearity(special) if special else nonlinearity("power", k)


def has_word(fn: Function) -> bool:
    """Return whether the text form reads the spelling of ``fn`` as ``fn`` itself."""
    inner: Any = fn
    while hasattr(inner, "fn"):  # an increment
        inner = inner.fn
    name = fn.spelled(*("x",) * fn.arity).partition("(")[0]
    try:
        return (
            re.fullmatch(r"\w+", name) is not None
            and function_named(name, fn.arity, *getattr(inner, "params", ())) == fn
        )
    except TensorProgError:
        return False
