"""Published parametrizations: one a file, named like it."""

from __future__ import annotations

from tensorprog.atoms.abc import ABC as ABC
from tensorprog.atoms.registry import Folder

_PARAMETRIZATIONS = Folder("parametrizations", "parametrization")


def register(record: ABC) -> ABC:
    """Register a parametrization under its name; returns it."""
    return _PARAMETRIZATIONS.add(record)


def parametrization(name: str) -> ABC:
    """Return a parametrization by name; raises ParseError listing near names.

    >>> parametrization("sp").with_lr(1).regime("sgd").verdict
    'kernel'
    """
    return _PARAMETRIZATIONS.get(name)


def parametrizations() -> tuple[ABC, ...]:
    """Return every registered parametrization."""
    return _PARAMETRIZATIONS.all()
