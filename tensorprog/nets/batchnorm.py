"""Batch normalization: a batch goes through together, as one program with an output for every sample."""

from __future__ import annotations

from collections.abc import Sequence

from tensorprog.atoms.registry import nonlinearity
from tensorprog.nets.layers import NORM_EPS, activate, at_least, linear, total, vector, weight
from tensorprog.program.build import apply
from tensorprog.program.program import Program


def batchnorm(depth: int = 2, *, batch: int = 3, activation="relu", affine: bool = False, d_in: int = 3, d_out: int = 1,
              loss: str = "squared") -> Program:
    """Return a perceptron with batch normalization, ``x_b = phi(BN(W x)_b)``; its outputs are a batch's samples.

    Samples see each other, so that a whole batch is one input: data ``xi_1, ..., xi_B``, outputs ``f_1, ..., f_B``. A
    coordinate of sample b is normalized by its mean and variance over the batch, ``(h_b - mean) / sqrt(var + 1e-5)``;
    weights are shared by the samples.

    Args:
        depth: the number L of hidden layers, at least 1.
        batch: the size B of the batch, at least 2 (with two, a sign is left of the inputs).
        activation: a nonlinearity's name or record.
        affine: whether a normalized vector has a trained gain and bias, ``W1_g`` and ``W1_b``.
        d_in, d_out: fixed sizes of input and output.
        loss: a loss's name.

    Example:
        >>> p = batchnorm(1, batch=2)
        >>> [w.out for w in p.params], p.outputs
        (['W1', 'V'], ('f_1', 'f_2'))

    Source: ioffe2015batch; yang2019batchnorm.
    """
    at_least("batchnorm", "depth", depth, 1)
    at_least("batchnorm", "batch", batch, 2)
    p = Program(loss=loss)
    n, d = p.dim("n"), p.dim("d_in", d_in)
    xs = [p.data(f"xi_{b}", d) for b in range(1, batch + 1)]
    for layer in range(1, depth + 1):
        W = weight(p, f"W{layer}", n, xs[0], "input" if layer == 1 else "hidden")
        ys = normalized(p, f"{layer}", [p.let(f"h{layer}_{b}", W @ x) for b, x in enumerate(xs, 1)])
        if affine:
            gain, shift = (vector(p, f"W{layer}_{k}", n, init=init, role=role)
                           for k, init, role in (("g", "one", "gain"), ("b", "zero", "bias")))
            ys = [p.let(f"z{layer}_{b}", y * gain + shift) for b, y in enumerate(ys, 1)]
        xs = [activate(p, activation, y, out=f"x{layer}_{b}") for b, y in enumerate(ys, 1)]
    out = p.dim("d_out", d_out)
    p.output(*(linear(p, "V", x, out, out=f"f_{b}", role="readout") for b, x in enumerate(xs, 1)))
    return p.freeze()


def normalized(p: Program, at: str, hs: Sequence) -> list:
    """Write the normalization of vectors, coordinate by coordinate, over a batch of them."""
    mean = p.let(f"m{at}", total(hs) / len(hs))
    cs = [p.let(f"c{at}_{b}", h - mean) for b, h in enumerate(hs, 1)]
    r = p.let(f"r{at}", apply(nonlinearity("rsqrt", NORM_EPS), p.let(f"v{at}", total([c * c for c in cs]) / len(cs))))
    return [p.let(f"y{at}_{b}", c * r) for b, c in enumerate(cs, 1)]
