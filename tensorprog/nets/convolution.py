"""Convolutional networks: one vector of channels a position, one matrix an entry of the filter, shared by positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

from tensorprog.errors import ParseError
from tensorprog.nets.layers import activate, at_least, linear, summed, total, vector
from tensorprog.program.dims import Dim
from tensorprog.program.program import Program

PADDINGS = ("same", "valid", "circular")
READOUTS = ("average", "flatten")

#: A position of a signal, or an entry of a filter: one number an axis, from 0.
Place = tuple[int, ...]
#: What every position of a layer reads: pairs of an entry of the filter and a position below.
Reads = dict[Place, list[tuple[Place, Place]]]


def cnn(depth: int = 2, *, size: int | str | Sequence[int] = 4, kernel: int | str | Sequence[int] = 3,
        stride: int | str | Sequence[int] = 1, padding: str = "same", pool: int | str | Sequence[int] = 1,
        readout: str = "average", activation="tanh", d_in: int = 3, d_out: int = 1, bias: bool = False,
        loss: str = "squared") -> Program:
    """Return a convolutional network, 1d or 2d, whose n channels grow: ``h_p = sum_k W_k x_{p+k}, x_p = phi(h_p)``.

    A position p is a vector along the channels; every entry k of a layer's filter is a matrix that all positions share.
    Positions are named ``h1_t2`` (1d), ``h1_t2s3`` (2d), matrices ``W1_k2``, ``W1_k2j3``, products ``h1_k2_t2``, data
    ``xi_t2``; all numbers are from 1.

    Args:
        depth: the number of convolutions.
        size: positions of the input: 4, or 4x4 for two axes.
        kernel: entries of the filters; stride: steps between positions that are kept (one number, or one an axis).
        padding: "same" (ceil(size/stride) positions, zeros outside; the filter's middle, left of it if there are two,
            is at the position), "valid" (only where the filter fits) or "circular" (like "same", wrapped around).
        pool: after every activation, averages over windows of so many positions that do not overlap.
        readout: "average" (one weight for the mean over positions) or "flatten" (one weight a position).
        activation: a nonlinearity's name or record.
        d_in, d_out: channels of the input, size of the output.
        bias: whether every convolution has a bias (zero at the start, shared by positions).
        loss: a loss's name.

    Raises:
        ParseError: an option of another kind, or a filter or window that does not fit into its signal.

    Example:
        >>> p = cnn(1, size=4, kernel=2, padding="valid", readout="flatten")
        >>> [w.out for w in p.params]
        ['W1_k1', 'W1_k2', 'V_t1', 'V_t2', 'V_t3']
        >>> [w.out for w in cnn(1, size="2x2", kernel="1x2").params]
        ['W1_k1j1', 'W1_k1j2', 'V']

    Source: yang2019wide.
    """
    at_least("cnn", "depth", depth, 1)
    for option, value, known in (("padding", padding, PADDINGS), ("readout", readout, READOUTS)):
        if value not in known:
            raise ParseError(f"cnn {option}", value, f"no such {option}", "use " + ", ".join(known))
    shape = _lengths("size", size)
    filters, strides, window = (_lengths(k, v, len(shape)) for k, v in
                                (("kernel", kernel), ("stride", stride), ("pool", pool)))
    layers: list[tuple[Reads, Reads]] = []  # of every layer the convolution, then the pooling
    for layer in range(1, depth + 1):
        conv = _reads(f"layer {layer}: kernel", shape, filters, strides, padding)
        shape = _shape(conv)
        pooled = _reads(f"layer {layer}: pool", shape, window, window, "valid")
        shape = _shape(pooled)
        layers.append((conv, pooled))
    used = set(layers[-1][1])
    kept: list[tuple[Reads, Reads]] = []
    for conv, pooled in reversed(layers):  # what strides and windows skip is not computed
        pooled = {p: pooled[p] for p in sorted(used)}
        conv = {p: conv[p] for p in sorted({q for reads in pooled.values() for _, q in reads})}
        used = {q for reads in conv.values() for _, q in reads}
        kept.append((conv, pooled))

    p = Program(loss=loss)
    n, d = p.dim("n"), p.dim("d_in", d_in)
    places = product(*map(range, _lengths("size", size)))
    xs = {q: p.data(_at("xi", q), d) for q in places}
    for layer, (conv, pooled) in enumerate(reversed(kept), 1):
        role = "input" if layer == 1 else "hidden"
        hs = convolution(p, f"W{layer}", xs, n, conv, out=f"h{layer}", role=role, bias=bias)
        xs = {q: activate(p, activation, h, out=_at(f"x{layer}", q)) for q, h in hs.items()}
        if prod(window) > 1:
            xs = {q: p.let(_at(f"y{layer}", q), total([xs[r] for _, r in reads]) / len(reads))
                  for q, reads in pooled.items()}
    out = p.dim("d_out", d_out)
    if readout == "flatten":
        weights = {q: p.param(_at("V", q), out, n, role="readout") for q in xs}
        p.output(summed(p, {_at("v", q): weights[q] @ x for q, x in xs.items()}, out="f"))
    else:
        y = p.let("y", total(list(xs.values())) / len(xs)) if len(xs) > 1 else xs[min(xs)]
        p.output(linear(p, "V", y, out, out="f", role="readout"))
    return p.freeze()


def convolution(p: Program, name: str, xs: Mapping[Place, Any], rows: Dim, reads: Reads, *, out: str, role: str = "",
                bias: bool = False) -> dict[Place, Any]:
    """Write ``h_q = sum of W_k x_r`` over the pairs (k, r) that q reads, for every position q.

    Args:
        xs: the vector of every position below, order n^0.
        rows: the axis of the result, the channels.
        reads: the pairs of every position; a matrix that no position uses is not made.

    Example:
        >>> p = Program()
        >>> n, d = p.dim("n"), p.dim("d", 3)
        >>> xs = {(i,): p.data(f"xi{i}", d) for i in (0, 1)}
        >>> hs = convolution(p, "W", xs, n, {(0,): [((0,), (0,)), ((1,), (1,))]}, out="h")
        >>> [line.out for line in p.lines[2:]]
        ['W_k1', 'W_k2', 'h_k1_t1', 'h_k2_t1', 'h_t1']
    """
    cols = next(iter(xs.values())).type.dim
    weights = {k: p.param(_named(name, k, "kj"), rows, cols, role=role)
               for k in sorted({k for pairs in reads.values() for k, _ in pairs})}
    b = [vector(p, f"{name}_b", rows, init="zero", role="bias")] if bias else []
    return {q: summed(p, {_at(_named(out, k, "kj"), q): weights[k] @ xs[r] for k, r in pairs}, *b, out=_at(out, q))
            for q, pairs in reads.items()}


def _reads(what: str, shape: Place, filters: Place, strides: Place, padding: str) -> Reads:
    """Return for every position of the result which entries of the filter meet which positions of the signal."""
    axes = [_along(what, *sizes, padding) for sizes in zip(shape, filters, strides, strict=True)]
    found = {}
    for q in product(*(range(len(axis)) for axis in axes)):
        pairs = product(*(axis[i] for axis, i in zip(axes, q, strict=True)))
        found[q] = [(tuple(k for k, _ in pair), tuple(r for _, r in pair)) for pair in pairs]
    return found


def _along(what: str, size: int, length: int, stride: int, padding: str) -> list[list[tuple[int, int]]]:
    """Return the same along one axis.

    >>> _along("kernel", 3, 3, 2, "same"), _along("kernel", 3, 2, 1, "circular")[2]
    ([[(1, 0), (2, 1)], [(0, 1), (1, 2)]], [(0, 2), (1, 0)])
    """
    if padding == "valid":
        if length > size:
            raise ParseError(f"cnn {what}", length, f"it does not fit into {size} position{'s' * (size > 1)}",
                             "use fewer layers or a larger size" + (", or padding=same" if "kernel" in what else ""))
        return [[(k, q + k) for k in range(length)] for q in range(0, size - length + 1, stride)]
    found = [[(k, q + k - (length - 1) // 2) for k in range(length)] for q in range(0, size, stride)]
    if padding == "circular":
        return [[(k, r % size) for k, r in pairs] for pairs in found]
    return [[(k, r) for k, r in pairs if 0 <= r < size] for pairs in found]


def _shape(reads: Reads) -> Place:
    return tuple(i + 1 for i in max(reads))


def _at(name: str, place: Place) -> str:
    return _named(name, place, "ts")


def _named(name: str, place: Place, letters: str) -> str:
    return f"{name}_" + "".join(f"{letter}{i + 1}" for letter, i in zip(letters, place, strict=False))


def _lengths(option: str, value: int | str | Sequence[int], axes: int | None = None) -> Place:
    """Return an option that is a whole number, or one an axis, as a tuple.

    >>> _lengths("size", "4x3"), _lengths("kernel", 3, 2)
    ((4, 3), (3, 3))
    """
    parts = value.split("x") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    found = []
    for x in parts:
        x = int(x) if isinstance(x, str) and x.strip().isdecimal() else x
        if not isinstance(x, int) or isinstance(x, bool) or x < 1:
            raise ParseError(f"cnn {option}", value, f"{option} is a whole number of at least 1, or one an axis",
                             f"use {option}=3 or {option}=3x3")
        found.append(x)
    if len(found) == 1 and axes is not None:
        found *= axes
    if len(found) not in ((1, 2) if axes is None else (axes,)):
        raise ParseError(f"cnn {option}", value, "signals have one or two axes, and every option as many as size",
                         "use size=4 or size=4x4" if axes is None else f"use one number, or {axes}")
    return tuple(found)
