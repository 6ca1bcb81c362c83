"""The functions that a program can name: registered nonlinearities, their derivatives and their increments."""

from __future__ import annotations

from fractions import Fraction

from tensorprog.atoms.function import Function


def nonlinearity(name: str, *params) -> Function:
    """Return the registered nonlinearity of a name, perhaps with exact parameters; ``diff_`` in front: its increment."""
    from tensorprog.atoms import registry

    if name.startswith("diff_"):
        from tensorprog.atoms.diff import Diff

        return Diff(nonlinearity(name.removeprefix("diff_"), *params))
    return registry.nonlinearity(name, *params)


def takes_parameters(name: str) -> bool:
    """Return whether numbers after the argument are parameters: those of a nonlinearity of one argument are."""
    from tensorprog.atoms import registry

    return registry.is_nonlinearity(name.removeprefix("diff_"))


def power(k: Fraction) -> Function:
    """Return ``x -> x^k`` for a power that is not a positive whole number."""
    return nonlinearity({Fraction(1, 2): "sqrt", Fraction(-1): "reciprocal"}[k]) if k in (Fraction(1, 2), -1) \
        else nonlinearity("power", k)


def named_like(fn: Function) -> Function:
    """Return the function that the text form reads where ``fn`` is spelled; raises if there is none."""
    if hasattr(fn, "fn"):  # an increment
        return type(fn)(named_like(fn.fn))
    return nonlinearity(fn.spelled("x").partition("(")[0], *getattr(fn, "params", ()))
