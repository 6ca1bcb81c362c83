"""Piecewise polynomials inside functions, taken apart.

With s = step(g), phi(relu(g) + h) = s phi(g + h) + (1 - s) phi(h).

What is left inside phi is affine in Gaussians, and closed forms apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from tensorprog.atoms.function import Function
from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError
from tensorprog.interp.formulas import between, thresholds_of
from tensorprog.interp.zvar import ZVar, constant

if TYPE_CHECKING:
    from tensorprog.interp.zspace import ZSpace


def taken_apart(space: ZSpace, fn: Function, args: tuple[ZVar, ...], line: str) -> ZVar | None:
    """Return ``fn(args)`` with the piecewise polynomials inside taken apart, None if that does not make it flat.

    With s = step(g - t), phi(relu(g) + h) is s phi(g + h) + (1 - s) phi(h): then closed forms apply.
    """
    form = _flattened(space, args, 0)
    if form is None:
        return None
    thresholds = sorted({t for a in _piecewise(space, args, form) for t in thresholds_of(space.atoms[a].fn) or ()})
    total, below = ZVar({}), constant(Fraction(1))
    try:
        for i in range(len(thresholds) + 1):
            value = space.apply(fn, _branch(space, args, form, thresholds, i), line)
            here, below = below, ZVar({})
            if i < len(thresholds):
                below = space.apply(nonlinearity("step"), (form + constant(-thresholds[i]),), line)
                here = here + below.scaled(Fraction(-1))
            total = total + here * value
    except NotCoveredError:  # a function that jumps at the value of a whole branch
        return None
    return total


def _flattened(space: ZSpace, args: tuple[ZVar, ...], depth: int) -> ZVar | None:
    """Return a form whose branches make all arguments affine, perhaps after more of them; None if none does."""
    if depth > 2 or all(space.gaussian(z) for z in args):
        return None
    inside = [a for z in args for m in z.terms for a, _ in m if thresholds_of(space.atoms[a].fn) is not None]
    form = next((space.atoms[a].args[0] for a in inside if space.gaussian(space.atoms[a].args[0])), None)
    if form is None:
        return None
    thresholds = sorted({t for a in _piecewise(space, args, form) for t in thresholds_of(space.atoms[a].fn) or ()})
    if len(thresholds) > 2:
        return None
    for i in range(len(thresholds) + 1):
        branch = _branch(space, args, form, thresholds, i)
        if not all(space.gaussian(z) for z in branch) and _flattened(space, branch, depth + 1) is None:
            return None
    return form


def _piecewise(space: ZSpace, args: Sequence[ZVar], form: ZVar) -> list[int]:
    return sorted({a for z in args for m in z.terms for a, _ in m
                   if thresholds_of(space.atoms[a].fn) is not None and space.atoms[a].args[0] == form})


def _branch(space: ZSpace, args: tuple[ZVar, ...], form: ZVar, thresholds: Sequence[Fraction],
            i: int) -> tuple[ZVar, ...]:
    """Return the arguments where the form lies between thresholds i - 1 and i."""
    here = {a: space.compose(between(space.atoms[a].fn, thresholds, i), form)
            for a in _piecewise(space, args, form)}

    def replaced(z: ZVar) -> ZVar:
        total = ZVar({})
        for m, c in z.terms.items():
            term = ZVar({tuple((a, p) for a, p in m if a not in here): c})
            for a, p in m:
                for _ in range(p if a in here else 0):
                    term = term * here[a]
            total = total + term
        return total

    return tuple(replaced(z) for z in args)
