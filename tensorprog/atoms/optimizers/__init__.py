"""Optimizers: one update rule a file, named like it."""

from __future__ import annotations

from tensorprog.atoms.registry import Folder
from tensorprog.atoms.rule import Rule

_OPTIMIZERS = Folder("optimizers", "optimizer")


def register(rule: Rule) -> Rule:
    """Register an update rule under its name; returns it."""
    return _OPTIMIZERS.add(rule)


def optimizer(name: str) -> Rule:
    """Return an update rule by name; raises ParseError listing near names.

    >>> optimizer("adamw").weight_decay, optimizer("signsgd").linear
    (Fraction(1, 10), False)
    """
    return _OPTIMIZERS.get(name)


def optimizers() -> tuple[Rule, ...]:
    """Return every registered update rule."""
    return _OPTIMIZERS.all()
