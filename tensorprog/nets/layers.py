"""Layers that write lines into a program. Weights get unknown exponents; a layer knows nothing of parametrizations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from tensorprog.atoms.multivariate import Softmax
from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import ParseError
from tensorprog.program.build import apply
from tensorprog.program.dims import Dim
from tensorprog.program.program import Program

#: What a normalization adds to a variance before it divides by its root.
NORM_EPS = Fraction(1, 10**5)


def unit(p: Program):
    """Return the constant input 1 of the n x 1 matrices that are biases and gains."""
    if "one" not in p:
        return p.constant("one", p.dim("unit", 1))
    return p["one"]


def linear(p: Program, name: str, x, rows: Dim, *, out: str, role: str = "", bias: bool = False):
    """Write ``out = W @ x (+ b)`` for a new or known weight ``name``; its bias is ``name_b``, zero at the start.

    Args:
        x: a vector of the program, order n^0.
        rows: the axis of the result.
        role: a word for tables.

    Example:
        >>> p = Program()
        >>> n, d = p.dim("n"), p.dim("d", 3)
        >>> h = linear(p, "W1", p.data("xi", d), n, out="h1", bias=True)
        >>> [w.out for w in p.params]
        ['W1', 'W1_b']
    """
    h = weight(p, name, rows, x, role) @ x
    return p.let(out, h if not bias else h + vector(p, f"{name}_b", rows, init="zero", role="bias"))


def weight(p: Program, name: str, rows: Dim, x, role: str):
    """Return the weight of a name, which is made on its first use: ``rows`` by the axis of x."""
    return p[name] if name in p else p.param(name, rows, x.type.dim, role=role)


def vector(p: Program, name: str, dim: Dim, *, init: str, role: str):
    """Return a trainable vector: an n x 1 matrix applied to the constant 1."""
    one = unit(p)
    W = p[name] if name in p else p.param(name, dim, one.dim, init=init, role=role)
    return W @ one


def activate(p: Program, activation, x, *, out: str):
    """Write ``out = phi(x)``; the activation is a name or a record."""
    phi = nonlinearity(activation) if isinstance(activation, str) else activation
    return p.let(out, apply(phi, x))


def norm(p: Program, name: str, x, *, out: str, centered: bool = True):
    """Write a LayerNorm (``centered``) or RMSNorm with gain ``name_g``; a LayerNorm also has a bias ``name_b``."""
    dim = x.type.dim
    if centered:
        x = p.let(f"{out}_c", x - p.let(f"{out}_mean", p.mean(x)))
    scale = p.let(f"{out}_r", apply(nonlinearity("rsqrt", NORM_EPS), p.let(f"{out}_var", p.mean(x * x))))
    y = x * scale * vector(p, f"{name}_g", dim, init="one", role="gain")
    return p.let(out, y + vector(p, f"{name}_b", dim, init="zero", role="bias") if centered else y)


def attention(p: Program, name: str, xs: Sequence, alpha, *, heads: Dim, d_head: Dim, out: str, bias: bool = False):
    """Write causal multi-head attention over tokens ``xs`` and return one vector a token.

    One of ``heads`` and ``d_head`` is fixed. If it is ``heads``, a query is one vector of d_head coordinates a head
    and a logit a number; if it is ``d_head``, a query is d_head vectors with one coordinate a head, and a logit a
    vector along the heads. Logits are multiplied by ``d_head^-alpha``.

    Raises:
        ProgramError: by the caller, if neither axis is fixed (that needs tensors of two growing axes).
    """
    parts = int(heads.factor if heads.is_fixed else d_head.factor)
    axis = d_head if heads.is_fixed else heads

    def project(kind: str, role: str):
        return [[linear(p, f"{name}_{kind}{i + 1}", x, axis, out=f"{out}_{kind}{i + 1}_t{t + 1}", role=role, bias=bias)
                 for t, x in enumerate(xs)] for i in range(parts)]

    q, k, v = project("q", "query"), project("k", "key"), project("v", "value")
    scale = d_head ** -alpha
    mixed: list[list] = [[] for _ in range(parts)]
    for t in range(len(xs)):
        if heads.is_fixed:
            logits = [[p.let(f"{out}_l{i + 1}_t{t + 1}s{s + 1}", scale * p.sum(q[i][t] * k[i][s]))
                       for s in range(t + 1)] for i in range(parts)]
        else:
            shared = [p.let(f"{out}_l_t{t + 1}s{s + 1}", scale * total([q[i][t] * k[i][s] for i in range(parts)]))
                      for s in range(t + 1)]
            logits = [shared] * parts
        for i in range(parts):
            if t == 0:
                mixed[i].append(v[i][0])
                continue
            weights = [p.let(f"{out}_w{i + 1}_t{t + 1}s{s + 1}", apply(Softmax(t + 1, s), *logits[i]))
                       for s in range(t + 1)]
            mixed[i].append(p.let(f"{out}_o{i + 1}_t{t + 1}", total([w * v[i][s] for s, w in enumerate(weights)])))
    dim = xs[0].type.dim
    return [p.let(f"{out}_t{t + 1}", total([
        linear(p, f"{name}_o{i + 1}", mixed[i][t], dim, out=f"{out}_p{i + 1}_t{t + 1}", role="projection")
        for i in range(parts)])) for t in range(len(xs))]


def total(terms: Sequence):
    """Return the sum of at least one variable."""
    return sum(terms[1:], start=terms[0])


def summed(p: Program, parts: Mapping[str, Any], *others, out: str):
    """Write ``out`` as the sum of parts, each a line of its own name (so that it is measured), and of others."""
    if len(parts) == 1 and not others:
        return p.let(out, *parts.values())
    return p.let(out, total([*(p.let(name, x) for name, x in parts.items()), *others]))


def at_least(net: str, option: str, value: object, least: int) -> None:
    """Raise ParseError for an option of an architecture that is not a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ParseError(f"{net} {option}", value, f"{option} is a whole number of at least {least}",
                         f"use {option}={least}")
