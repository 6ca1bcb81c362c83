"""Giving every unknown exponent of a network a value: from a table, a derivation or a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from tensorprog.errors import ParseError
from tensorprog.interp.unroll import symbol, unroll
from tensorprog.program.program import Program
from tensorprog.scaling.solve import Solver


def assign(network: Program, parametrization, optimizer) -> dict[str, Fraction]:
    """Return a value for every unknown exponent of a network.

    Args:
        network: the forward program.
        parametrization: a name ("sp", "ntp", "mfp", "mup"), an ``ABC`` record, a ``Derived``, or a mapping from
            weights to ``{"a": ..., "b": ..., "c": ...}`` with ``"*"`` for the rest.
        optimizer: the optimizer's record (tables differ between its families).

    Raises:
        ParseError: a weight that is missing or unknown, an exponent that is not rational.
        NotCoveredError: the record says nothing about a weight.
    """
    values = getattr(parametrization, "values", None)
    if isinstance(values, dict):
        return dict(values)
    from tensorprog.atoms.parametrizations import ABC
    from tensorprog.atoms.parametrizations import parametrization as named

    if isinstance(parametrization, str):
        parametrization = named(parametrization)
    weights = {p.out: (p.type.rows.growth, p.type.cols.growth) for p in network.params}
    if isinstance(parametrization, Mapping):
        parametrization = ABC.from_json(parametrization)
    if not hasattr(parametrization, "assign"):
        raise ParseError("parametrization", parametrization, "neither a name, nor a record, nor exponents",
                         'use "mup", or {"*": {"a": 0, "b": "1/2", "c": 0}}')
    out: dict[str, Fraction] = {}
    table = parametrization.assign(weights, optimizer.family)
    for p in network.params:
        given = (p.param.a, p.param.b, p.param.c)
        for letter, e, own in zip("abc", table[p.out], given, strict=True):
            out[symbol(letter, p.out)] = e if own is None else own
        out[symbol("eps", p.out)] = out[symbol("wd", p.out)] = Fraction(0)
    out |= parametrization.multipliers
    if any(name not in out for name in network.unknowns):
        # A multiplier that the table does not name makes its line Theta(1): at initialization (1/sqrt(d) attention),
        # or, in µP, however its factors come to align (1/d attention).
        aligned = getattr(parametrization, "name", "") == "mup"
        solver = Solver(unroll(network, optimizer, steps=0), out, aligned=aligned)
        out |= {name: solver.values.get(name, Fraction(0)) for name in network.unknowns}
    return out
