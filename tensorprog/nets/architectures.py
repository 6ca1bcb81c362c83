"""Architectures: functions that return the forward program of one sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from tensorprog.errors import NotCoveredError, ParseError
from tensorprog.nets.batchnorm import batchnorm
from tensorprog.nets.convolution import cnn
from tensorprog.nets.layers import activate, at_least, attention, linear, norm
from tensorprog.nets.recurrent import gru, rnn
from tensorprog.program.dims import Dim
from tensorprog.program.program import Program


def mlp(depth: int = 2, *, activation="tanh", d_in: int = 3, d_out: int = 1, bias: bool = False,
        loss: str = "squared") -> Program:
    """Return a multilayer perceptron: ``h1 = W1 xi, x1 = phi(h1), ..., f = V x_depth``.

    Args:
        depth: the number L of hidden layers, at least 1.
        activation: a nonlinearity's name or record.
        d_in, d_out: fixed sizes of input and output.
        bias: whether every hidden layer has a bias (zero at the start).
        loss: a loss's name.

    Example:
        >>> [w.out for w in mlp(depth=3).params]
        ['W1', 'W2', 'W3', 'V']
    """
    at_least("mlp", "depth", depth, 1)
    p = Program(loss=loss)
    n = p.dim("n")
    x = p.data("xi", p.dim("d_in", d_in))
    for layer in range(1, depth + 1):
        h = linear(p, f"W{layer}", x, n, out=f"h{layer}", role="input" if layer == 1 else "hidden", bias=bias)
        x = activate(p, activation, h, out=f"x{layer}")
    p.output(linear(p, "V", x, p.dim("d_out", d_out), out="f", role="readout"))
    return p.freeze()


def resnet(depth: int = 2, *, activation="relu", block: int = 1, normalize: str = "none", d_in: int = 3, d_out: int = 1,
           bias: bool = False, loss: str = "squared") -> Program:
    """Return a residual MLP: ``x_l = x_{l-1} + branch_l(x_{l-1})`` between an input and a readout weight.

    Args:
        depth: the number of residual blocks.
        block: weights a block: 1 is ``W phi(x)``, 2 is ``U phi(W x)``.
        normalize: "none", "layernorm" or "rmsnorm" at the start of every branch and before the readout.
    """
    at_least("resnet", "depth", depth, 1)
    if block not in (1, 2):
        raise ParseError("resnet block", block, "a block has one or two weights", "use block=1 or block=2")
    p = Program(loss=loss)
    n = p.dim("n")
    x = linear(p, "W0", p.data("xi", p.dim("d_in", d_in)), n, out="x0", role="input", bias=bias)
    for layer in range(1, depth + 1):
        y = _normalized(p, normalize, f"N{layer}", x, out=f"y{layer}")
        if block == 2:
            y = linear(p, f"W{layer}", y, n, out=f"h{layer}", role="hidden", bias=bias)
            name = f"U{layer}"
        else:
            name = f"W{layer}"
        y = activate(p, activation, y, out=f"z{layer}")
        branch = linear(p, name, y, n, out=f"r{layer}", role="hidden", bias=bias and block == 1)
        x = p.let(f"x{layer}", x + branch)
    x = _normalized(p, normalize, "N", x, out="y")
    p.output(linear(p, "V", x, p.dim("d_out", d_out), out="f", role="readout"))
    return p.freeze()


def transformer(depth: int = 2, *, tokens: int = 2, heads: int = 1, activation="gelu", normalize: str = "layernorm",
                vocab: int = 5, ffn: int = 4, bias: bool = False, loss: str = "cross_entropy",
                regime: Mapping[str, object] | None = None) -> Program:
    """Return a pre-norm decoder: embeddings, causal attention, feed-forward of width ``ffn * n``, untied readout.

    Args:
        depth: the number of blocks (attention and feed-forward each).
        tokens: the length of the sequence.
        heads: how many heads (or, if the heads grow, coordinates a head).
        regime: growths of "heads" and "d_head" as powers of n: ``{"heads": 0, "d_head": 1}`` (default) or
            ``{"heads": 1, "d_head": 0}``.
        normalize: "layernorm" or "rmsnorm".
        bias: whether queries, keys, values and feed-forward layers have biases.

    Raises:
        NotCoveredError: if heads and head dimension both grow.

    Example:
        >>> p = transformer(depth=1)
        >>> p.unknowns, len(p.outputs)
        (('alpha',), 2)
    """
    at_least("transformer", "depth", depth, 1)
    at_least("transformer", "tokens", tokens, 1)
    p = Program(loss=loss)
    n = p.dim("n")
    heads_dim, d_head = _head_axes(p, heads, dict(regime or {}))
    wide = p.dim("ffn", growth=1, factor=ffn)
    alpha = p.exponent("alpha")
    words, places = p.dim("vocab", vocab), p.dim("tokens", tokens)
    E, P = p.param("E", n, words, role="embedding"), p.param("P", n, places, role="position")
    xs = []
    for t in range(tokens):
        tok, pos = p.data(f"tok{t + 1}", words, onehot=t % vocab), p.data(f"pos{t + 1}", places, onehot=t)
        xs.append(p.let(f"e_t{t + 1}", E @ tok + P @ pos))
    for layer in range(1, depth + 1):
        b = f"b{layer}"
        ys = [_normalized(p, normalize, f"{b}_n1", x, out=f"{b}_y_t{t + 1}") for t, x in enumerate(xs)]
        mixed = attention(p, b, ys, alpha, heads=heads_dim, d_head=d_head, out=f"{b}_a", bias=bias)
        xs = [p.let(f"{b}_m_t{t + 1}", x + a) for t, (x, a) in enumerate(zip(xs, mixed, strict=True))]
        out = []
        for t, x in enumerate(xs):
            y = _normalized(p, normalize, f"{b}_n2", x, out=f"{b}_z_t{t + 1}")
            h = linear(p, f"{b}_up", y, wide, out=f"{b}_h_t{t + 1}", role="hidden", bias=bias)
            g = activate(p, activation, h, out=f"{b}_g_t{t + 1}")
            r = linear(p, f"{b}_down", g, n, out=f"{b}_r_t{t + 1}", role="hidden", bias=bias)
            out.append(p.let(f"{b}_x_t{t + 1}", x + r))
        xs = out
    for t, x in enumerate(xs):
        y = _normalized(p, normalize, "nf", x, out=f"y_t{t + 1}")
        p.output(linear(p, "V", y, words, out=f"f_t{t + 1}", role="readout"))
    return p.freeze()


ARCHITECTURES: dict[str, Callable[..., Program]] = {"mlp": mlp, "resnet": resnet, "transformer": transformer,
                                                    "cnn": cnn, "rnn": rnn, "gru": gru, "batchnorm": batchnorm}


def _normalized(p: Program, kind: str, name: str, x, *, out: str):
    if kind == "none":
        return x
    if kind not in ("layernorm", "rmsnorm"):
        raise ParseError("normalize", kind, "unknown normalization", "use layernorm, rmsnorm or none")
    return norm(p, name, x, out=out, centered=kind == "layernorm")


def _head_axes(p: Program, heads: int, regime: dict) -> tuple[Dim, Dim]:
    growths: dict[str, Fraction] = {}
    for key, growth in regime.items():
        if key not in ("heads", "d_head"):
            raise ParseError("regime", key, "no such axis of a transformer", "use heads and d_head")
        try:
            growths[key] = Fraction(str(growth))
        except (ValueError, ZeroDivisionError):
            raise ParseError("regime", growth, "a growth is a rational power of n", f"write {key}=1/2") from None
    grown = growths.get("heads", 1 - growths.get("d_head", Fraction(1)))
    along = growths.get("d_head", 1 - grown)
    if grown and along:
        raise NotCoveredError("transformer", f"heads ~ n^{grown}, d_head ~ n^{along}",
                              "logits would be a tensor with two growing axes", "fix one of them: heads=0 or d_head=0")
    if grown:
        return p.dim("heads", growth=grown, factor=Fraction(1, heads) if grown == 1 else 1), p.dim("d_head", heads)
    if not along:
        raise NotCoveredError("transformer", "heads=0, d_head=0", "then attention does not grow at all",
                              "let one of them grow: heads=1 or d_head=1")
    return p.dim("heads", heads), p.dim("d_head", growth=along, factor=Fraction(1, heads) if along == 1 else 1)
