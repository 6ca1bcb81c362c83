"""Looking atoms up by name: one record a file, found in its folder when first asked for.

A record's file is named like the record, so looking up one name loads one file. The names are those of the text form.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.errors import ParseError, RecordError


@dataclass(frozen=True, slots=True)
class Family:
    """Records with exact parameters: ``make(*params)`` is the one called ``name(params)``.

    Args:
        name: the name under which it is looked up.
        make: parameters (Fractions) to a record; raises RecordError if they are out of range.
        examples: parameters with which it is tested and listed.
        default: the parameters when none are given; None if they have to be.
    """

    name: str
    make: Callable[..., Nonlinearity]
    examples: tuple[tuple[Any, ...], ...]
    default: tuple[Any, ...] | None = None


class Folder:
    """The records of one folder of ``tensorprog.atoms``, found lazily."""

    def __init__(self, package: str, kind: str):
        self.package, self.kind = f"tensorprog.atoms.{package}", kind
        self.records: dict[str, Any] = {}
        self._files: frozenset[str] | None = None

    def add(self, record):
        """Add a record under its name; returns it. Another record of the same name is a RecordError."""
        old = self.records.setdefault(record.name, record)
        if old is not record:
            raise RecordError(f"{self.kind} {record.name!r}", record.name, "this name is registered already",
                              "use another name")
        return record

    @property
    def names(self) -> tuple[str, ...]:
        """Every name: those of the files, and those registered by the user."""
        if self._files is None:
            folder = importlib.import_module(self.package).__path__
            self._files = frozenset(m.name for m in pkgutil.iter_modules(folder))
        return tuple(sorted(self._files | set(self.records)))

    def get(self, name: str):
        """Return the record; raises ParseError naming its nearest neighbours."""
        if name not in self.records and name in self.names:
            importlib.import_module(f"{self.package}.{name}")
        if name not in self.records:
            near = get_close_matches(name, self.names, 3, 0.5) or self.names
            raise ParseError(name, name, f"no such {self.kind}", "did you mean " + ", ".join(near) + "?")
        return self.records[name]

    def all(self) -> tuple[Any, ...]:
        """Return every record, sorted by name."""
        return tuple(self.get(name) for name in self.names)


_NONLINS = Folder("nonlins", "nonlinearity")
_MEMBERS: dict[tuple[str, tuple[Fraction, ...]], Nonlinearity] = {}
_DERIVATIVE = re.compile(r"d([1-9]?)_(\w+)")
_CALL = re.compile(r"(\w+)\((.*)\)")


def register(record):
    """Register a Nonlinearity or a Family of them, so that the text form, tests and tables find it; returns it."""
    return _NONLINS.add(record)


def nonlinearity(name: str, *params) -> Nonlinearity:
    """Return a nonlinearity by name and exact parameters.

    The same function is written ``hermite(x, 3)`` in the text form, ``nonlinearity("hermite", 3)`` here, and its
    record's name "hermite(3)" works too. "d_tanh" is the derivative of tanh, "d3_tanh" the third one (up to d9).

    Raises:
        ParseError: no such name (near ones are listed), parameters where none belong, or one that is not rational.

    Example:
        >>> nonlinearity("leaky_relu", Fraction(1, 5)) is nonlinearity("leaky_relu(1/5)")
        True
        >>> nonlinearity("hermite", 3).spelled("x"), nonlinearity("d2_hermite", 3)(0.5)
        ('hermite(x, 3)', 3.0)
        >>> nonlinearity("rellu")
        Traceback (most recent call last):
        tensorprog.errors.ParseError: line rellu: no such nonlinearity (got 'rellu')
          fix: did you mean relu, gelu, leaky_relu?
    """
    if called := _CALL.fullmatch(name):
        name, params = called[1], tuple(p.strip() for p in called[2].split(",") if p.strip())
    exact = tuple(_rational(name, p) for p in params)
    if (derived := _DERIVATIVE.fullmatch(name)) and name not in _NONLINS.records:
        record = nonlinearity(derived[2], *exact)
        for _ in range(int(derived[1] or 1)):
            made = record.partial(0)
            if made is None:
                raise ParseError(name, name, f"this derivative of {derived[2]} is identically zero", "write 0")
            record = made
        return record
    found = _NONLINS.get(name)
    if isinstance(found, Nonlinearity):
        if exact:
            raise ParseError(name, ", ".join(map(str, exact)), f"{name} has no parameters", f"write {name}(x)")
        return found
    return _member(found, exact)


def is_nonlinearity(name: str) -> bool:
    """Return whether ``nonlinearity`` knows a name (of a record, a family or a derivative)."""
    derived = _DERIVATIVE.fullmatch(name)
    return name in _NONLINS.names or bool(derived and derived[2] in _NONLINS.names)


def nonlinearities() -> tuple[Nonlinearity, ...]:
    """Return every registered record; of each family its examples."""
    out: list[Nonlinearity] = []
    for found in _NONLINS.all():
        if isinstance(found, Nonlinearity):
            out.append(found)
        else:
            out += [nonlinearity(found.name, *params) for params in found.examples]
    return tuple(out)


def families() -> tuple[Family, ...]:
    """Return the families of records with parameters."""
    return tuple(f for f in _NONLINS.all() if isinstance(f, Family))


def _member(family: Family, params: tuple[Fraction, ...]) -> Nonlinearity:
    if not params:
        if family.default is None:
            example = ", ".join(map(str, family.examples[0]))
            raise ParseError(family.name, family.name, f"{family.name} needs parameters",
                             f"write {family.name}(x, {example})")
        params = tuple(_rational(family.name, p) for p in family.default)
    key = (family.name, params)
    if key not in _MEMBERS:
        try:
            _MEMBERS[key] = family.make(*params)
        except TypeError:
            raise ParseError(family.name, ", ".join(map(str, params)), "too many or too few parameters",
                             f"{family.name} is written like {family.name}{family.examples[0]}") from None
    return _MEMBERS[key]


def _rational(name: str, p) -> Fraction:
    refused = ParseError(name, p, "parameters are exact rationals", "write 1/5, or Fraction(1, 5)")
    if isinstance(p, float):
        raise refused
    try:
        return Fraction(p)
    except (ValueError, TypeError, ZeroDivisionError):
        raise refused from None
