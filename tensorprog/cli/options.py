"""Options whose values are more than a word: regimes, widths, abc files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from tensorprog.cli.specs import read_text
from tensorprog.errors import ParseError


def read_regime(words: Sequence[str]) -> dict[str, str]:
    """Return ``{"heads": "1", "d_head": "0"}`` for ``["heads=1,d_head=0"]``; growths are rationals.

    >>> read_regime(["m=1/2"])
    {'m': '1/2'}
    """
    out: dict[str, str] = {}
    for word in words:
        for part in filter(None, (p.strip() for p in word.split(","))):
            name, equals, growth = (s.strip() for s in part.partition("="))
            try:
                if not equals or not name or Fraction(growth) < 0:
                    raise ValueError
            except (ValueError, ZeroDivisionError):
                raise ParseError(
                    "--regime",
                    part,
                    "not an axis and its power of n (a rational, at least 0)",
                    "write --regime heads=1,d_head=0",
                ) from None
            if name in out:
                raise ParseError("--regime", part, f"{name} is given twice", "give it once")
            out[name] = growth
    return out


def read_ratios(words: Sequence[str], dims: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"m": symbol rho}`` for ``["m=rho"]``: positive sympy symbols for the factors of dimensions.

    >>> from tensorprog.program.dims import Dim
    >>> read_ratios(["m=rho"], {"m": Dim("m")})
    {'m': rho}
    """
    out: dict[str, Any] = {}
    for word in words:
        name, _, symbol = (s.strip() for s in word.partition("="))
        if name not in dims or dims[name].is_fixed:
            growing = [d for d in dims if not dims[d].is_fixed]
            raise ParseError("--ratio", word, "no growing dimension of this name", f"use one of {', '.join(growing)}")
        if not symbol.isidentifier() or name in out or symbol in map(str, out.values()):
            raise ParseError("--ratio", word, "each dimension takes a letter of its own", f"write --ratio {name}=rho")
        import sympy

        out[name] = sympy.Symbol(symbol, positive=True)
    return out


def read_widths(text: str | None) -> tuple[int, ...] | None:
    """Return the widths of ``64,128,256``, increasing; None for None."""
    if text is None:
        return None
    try:
        widths = tuple(int(w) for w in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise ParseError("--widths", text, "widths are whole numbers, at least 1", "write --widths 64,128,256,512")
    if len(set(widths)) < len(widths):
        raise ParseError("--widths", text, "a width is given twice", "give different widths")
    return tuple(sorted(widths))


def read_parametrization(name: str | None, abc: str | None) -> Any:
    """Return what ``--parametrization`` or ``--abc`` says: a name, a record of explicit exponents, or None."""
    if name is not None and abc is not None:
        raise ParseError("--abc", abc, "--parametrization and --abc exclude each other", "give one of them")
    return read_abc(abc) if abc is not None else name


def read_abc(path: str) -> Mapping:
    """Return the exponents of an abc file: ``{"W1": {"a": "0", "b": "1/2", "c": "1"}, "*": ...}``.

    Raises:
        ParseError: not JSON (the place is named), not such an object, a name twice, or no rational.
    """
    try:
        # decimals stay text, so that 0.1 is the rational 1/10
        read = json.loads(read_text(path), object_pairs_hook=_object(path), parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise ParseError(
            f"{path}:{error.lineno}",
            error.doc.splitlines()[error.lineno - 1 : error.lineno],
            f"not JSON: {error.msg} at column {error.colno}",
            'write {"W1": {"a": "0", "b": "1/2", "c": "1"}, "*": ...}',
        ) from None
    except RecursionError:
        raise ParseError(
            path,
            path,
            "not such a file: it is nested too deeply",
            'write {"W1": {"a": "0", "b": "1/2", "c": "1"}, "*": ...}',
        ) from None
    from tensorprog.atoms.abc import ABC

    ABC.from_json(read)  # raises for what is not an abc file
    return read


def _object(path: str):
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [k for k, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise ParseError(path, key, "this name occurs twice", "give it once")
        return dict(pairs)

    return unique
