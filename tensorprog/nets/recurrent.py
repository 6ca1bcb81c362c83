"""Recurrent networks: weights shared by all times, one vector along the width a time."""

from __future__ import annotations

from tensorprog.errors import ParseError
from tensorprog.nets.layers import activate, at_least, linear, summed, total, vector, weight
from tensorprog.program.program import Program

READOUTS = ("last", "average", "all")


def rnn(length: int = 3, *, depth: int = 1, activation="tanh", readout: str = "last", d_in: int = 3, d_out: int = 1,
        bias: bool = False, loss: str = "squared") -> Program:
    """Return a simple recurrent network: ``h_t = W s_{t-1} + U xi_t, s_t = phi(h_t)``, weights shared over time.

    States start at zero; layer l reads the states of the layer below. Variables are ``h1_t2, s1_t2``, products
    ``u1_t2, w1_t2``, weights ``U1`` (from below), ``W1`` (over time), ``b1``, data ``xi_t2``.

    Args:
        length: the number of times.
        depth: the number of layers.
        activation: a nonlinearity's name or record.
        readout: "last" (the last state), "average" (the mean over times) or "all" (an output ``f_t1, f_t2, ...`` a
            time, by one weight).
        d_in, d_out: fixed sizes of input and output.
        bias: whether every layer has a bias (zero at the start).
        loss: a loss's name.

    Example:
        >>> [w.out for w in rnn(2, depth=2).params], rnn(2, readout="all").outputs
        (['U1', 'W1', 'U2', 'W2', 'V'], ('f_t1', 'f_t2'))

    Source: yang2019wide.
    """
    at_least("rnn", "depth", depth, 1)
    p, xs = _started("rnn", length, readout, d_in, loss)
    for layer in range(1, depth + 1):
        s = None
        for t, x in enumerate(xs):
            at = f"{layer}_t{t + 1}"
            xs[t] = s = activate(p, activation, _affine(p, "", layer, at, x, s, bias), out=f"s{at}")
    return _read_out(p, xs, readout, d_out)


def gru(length: int = 3, *, depth: int = 1, activation="tanh", readout: str = "last", d_in: int = 3, d_out: int = 1,
        bias: bool = False, loss: str = "squared") -> Program:
    """Return a network of gated recurrent units: ``s_t = z_t s_{t-1} + (1 - z_t) phi(U xi_t + W (r_t s_{t-1}))``.

    The gates are ``z_t = sigmoid(Uz xi_t + Wz s_{t-1})`` and ``r_t = sigmoid(Ur xi_t + Wr s_{t-1})``; products are
    coordinatewise, states start at zero. Of layer l the variables are ``z1_t2, r1_t2, c1_t2, s1_t2``, the weights
    ``Uz1, Wz1, Ur1, Wr1, U1, W1``.

    Args:
        activation: of the candidate ``c_t``; all others as in ``rnn``.

    Example:
        >>> [w.out for w in gru(2).params]
        ['Uz1', 'U1', 'Wz1', 'Ur1', 'Wr1', 'W1', 'V']

    Source: cho2014learning.
    """
    at_least("gru", "depth", depth, 1)
    p, xs = _started("gru", length, readout, d_in, loss)
    for layer in range(1, depth + 1):
        s = None
        for t, x in enumerate(xs):
            at = f"{layer}_t{t + 1}"
            z = activate(p, "sigmoid", _affine(p, "z", layer, at, x, s, bias), out=f"z{at}")
            kept = s
            if s is not None:
                r = activate(p, "sigmoid", _affine(p, "r", layer, at, x, s, bias), out=f"r{at}")
                kept = p.let(f"rs{at}", r * s)
            c = activate(p, activation, _affine(p, "", layer, at, x, kept, bias), out=f"c{at}")
            xs[t] = s = p.let(f"s{at}", c - z * c if s is None else z * s + c - z * c)
    return _read_out(p, xs, readout, d_out)


def _started(net: str, length: int, readout: str, d_in: int, loss: str) -> tuple[Program, list]:
    at_least(net, "length", length, 1)
    if readout not in READOUTS:
        raise ParseError(f"{net} readout", readout, "no such readout", "use " + ", ".join(READOUTS))
    p = Program(loss=loss)
    p.dim("n")
    d = p.dim("d_in", d_in)
    return p, [p.data(f"xi_t{t}", d) for t in range(1, length + 1)]


def _affine(p: Program, kind: str, layer: int, at: str, x, s, bias: bool):
    """Write ``h_t = U x_t + W s (+ b)``, without the second term where there is no state yet."""
    n = p.dim("n")
    parts = {f"u{kind}{at}": weight(p, f"U{kind}{layer}", n, x, "input" if layer == 1 else "hidden") @ x}
    if s is not None:
        parts[f"w{kind}{at}"] = weight(p, f"W{kind}{layer}", n, s, "hidden") @ s
    b = [vector(p, f"b{kind}{layer}", n, init="zero", role="bias")] if bias else []
    return summed(p, parts, *b, out=f"h{kind}{at}")


def _read_out(p: Program, states: list, readout: str, d_out: int) -> Program:
    out = p.dim("d_out", d_out)
    if readout == "all":
        p.output(*(linear(p, "V", s, out, out=f"f_t{t}", role="readout") for t, s in enumerate(states, 1)))
        return p.freeze()
    y = p.let("y", total(states) / len(states)) if readout == "average" and len(states) > 1 else states[-1]
    p.output(linear(p, "V", y, out, out="f", role="readout"))
    return p.freeze()
