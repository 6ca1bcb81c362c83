"""Many replicates at once: at small widths a run's cost is its number of lines, so arrays carry the seeds as an axis.

Vectors have shape (seeds, size), scalars (seeds, 1), matrices (seeds, rows, cols); an axis of length 1 stands for data
that all seeds share. Every seed sees the draws that ``run`` would give it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorprog.exponents.affine import Values
from tensorprog.finite.arrays import Arrays
from tensorprog.finite.draws import Draws
from tensorprog.finite.execute import Env, execute, matrix_shape
from tensorprog.interp.rules import Rules
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Outer,
    ScalarType,
    VectorType,
)
from tensorprog.program.program import Program

replicates = Rules("replicates")

#: Numbers in all matrices of a batch together.
_ROOM = 1 << 23
_MOST = 64


def batch_size(program: Program, n: int) -> int:
    """Return how many replicates of a program at scale n fit in one batch of moderate memory."""
    sizes, total = program.sizes(n), 1
    for line in program.lines:
        dense = isinstance(line, Outer) and not line.rule.linear
        if dense or (isinstance(line, Input) and isinstance(line.type, MatrixType)):
            total += math.prod(matrix_shape(program, line.out, sizes))
    return max(1, min(_MOST, _ROOM // total))


def run_replicates(program: Program, n: int, seeds: Sequence[int], *, values: Values | None = None,
                   draws: Sequence[Draws] | None = None, dtype: str = "float64",
                   data_seed: int = 0) -> dict[str, np.ndarray]:
    """Execute a program densely for several seeds at once; returns the sizes of its variables, one a seed.

    Example:
        >>> from tensorprog.finite.numpy_backend import run
        >>> p = Program()
        >>> dim = p.dim("n")
        >>> W, x = p.matrix("W", dim, dim), p.vector("x", dim)
        >>> y = (W.T @ (W @ x)).name
        >>> sizes = run_replicates(p, 64, [0, 1])[y]
        >>> np.allclose(sizes, [run(p, 64, s).size(y) for s in (0, 1)])
        True
    """
    if draws is None:
        draws = [Draws(n, s, dtype, data_seed=data_seed, cache=False) for s in seeds]
    batch = _Batch(program, n, draws, values or {})
    out: dict[str, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for line, dying in zip(program.lines, _last_uses(program), strict=True):
            x = batch.value[line.out] = replicates[line](batch, line)
            if isinstance(x, np.ndarray) and x.ndim == 2:
                size = np.sqrt(np.einsum("rn,rn->r", x, x) / x.shape[1]) if x.shape[1] > 1 else np.abs(x[:, 0])
                out[line.out] = np.broadcast_to(size, (len(draws),))
            for name in dying:
                del batch.value[name]
    return out


def _last_uses(program: Program) -> list[list[str]]:
    """Return, line by line, the variables that no later line needs."""
    last = {line.out: i for i, line in enumerate(program.lines)}
    for i, line in enumerate(program.lines):
        for a in line.args:
            last[a] = i
    out: list[list[str]] = [[] for _ in program.lines]
    for name, i in last.items():
        out[i].append(name)
    return out


class _Batch:
    def __init__(self, program: Program, n: int, draws: Sequence[Draws], exponents: Values):
        self.program, self.sizes, self.exponents = program, program.sizes(n), exponents
        arrays = Arrays(str(draws[0].dtype))
        self.envs = [Env(program, arrays, d, self.sizes, exponents, _no_matrix) for d in draws]
        self.dtype = draws[0].dtype
        self.value: dict[str, Any] = {}

    def at(self, scale) -> float:
        return scale.at(self.sizes, self.exponents)


def _no_matrix(name: str, rows: int, cols: int):
    raise AssertionError(f"{name}: matrices are drawn by the batch")


class _Factors:
    """``sum_k U_k^T V_k`` with U of shape (seeds, k, rows), V of shape (seeds, k, cols)."""

    def __init__(self, u: np.ndarray, v: np.ndarray):
        self.u, self.v = u, v

    def apply(self, x: np.ndarray, transposed: bool) -> np.ndarray:
        u, v = (self.v, self.u) if transposed else (self.u, self.v)
        inner = np.matmul(v, x[:, :, None])
        return np.matmul(u.swapaxes(1, 2), inner)[:, :, 0]


class _Entries:
    """``mean 1 1^T + scale * G`` with G of shape (seeds, rows, cols)."""

    def __init__(self, entries: np.ndarray, scale: float = 1.0, mean: float = 0.0):
        self.entries, self.scale, self.mean = entries, scale, mean

    def apply(self, x: np.ndarray, transposed: bool) -> np.ndarray:
        g = self.entries.swapaxes(1, 2) if transposed else self.entries
        out = self.scale * np.matmul(g, x[:, :, None])[:, :, 0]
        return out + self.mean * x.sum(axis=1, keepdims=True) if self.mean else out


@replicates(Input)
def _(batch: _Batch, line: Input):
    if isinstance(line.type, MatrixType):
        shape = matrix_shape(batch.program, line.out, batch.sizes)
        law: Any = line.law
        constant = isinstance(law, Constant)
        mean, variance = (batch.at(law.value), 0.0) if constant else (batch.at(law.mean), batch.at(law.variance))
        if variance == 0.0:
            return _Factors(np.full((1, 1, shape[0]), mean, batch.dtype), np.ones((1, 1, shape[1]), batch.dtype))
        entries = np.stack([env.draws.normal(line.out, shape) for env in batch.envs])
        return _Entries(entries, math.sqrt(variance), mean)
    shared = isinstance(line.law, Constant | Data)
    drawn = [execute[line]((line,), env)[0] for env in (batch.envs[:1] if shared else batch.envs)]
    return np.stack([np.atleast_1d(x) for x in drawn]).astype(batch.dtype)


@replicates(MatMul)
def _(batch: _Batch, line: MatMul):
    return batch.value[line.matrix].apply(batch.value[line.vector], line.transposed)


@replicates(Nonlin)
def _(batch: _Batch, line: Nonlin):
    out = np.asarray(line.fn.evaluate(batch.sizes, batch.exponents, *(batch.value[a] for a in line.args)))
    out = out.astype(batch.dtype, copy=False)
    t = batch.program.type_of(line.out)
    if isinstance(t, VectorType) and (out.ndim < 2 or out.shape[1] != batch.sizes[t.dim.name]):
        return np.broadcast_to(out, (out.shape[0] if out.ndim == 2 else 1, batch.sizes[t.dim.name]))
    return out.reshape(1, 1) if isinstance(t, ScalarType) and out.ndim == 0 else out


@replicates(Moment)
def _(batch: _Batch, line: Moment):
    product = batch.value[line.args[0]]
    for a in line.args[1:]:
        product = product * batch.value[a]
    return product.mean(axis=1, keepdims=True) if line.mean else product.sum(axis=1, keepdims=True)


@replicates(Outer)
def _(batch: _Batch, line: Outer):
    coef, gradient = batch.at(line.coef), batch.at(line.gradient)

    def block(names: Sequence[str]) -> np.ndarray:
        parts = [batch.value[x] for x in names]
        seeds = max(p.shape[0] for p in parts)
        return np.stack([np.broadcast_to(p, (seeds, p.shape[1])) for p in parts], axis=1)

    if line.rule.linear:
        weights = line.rule.linear_weights(len(line.pairs) - 1)
        flat = [(float(w) * coef * gradient, u, v)
                for w, pairs in zip(weights, line.pairs, strict=True) for u, v in pairs]
        scale = np.array([w for w, _, _ in flat], batch.dtype)
        return _Factors(block([u for _, u, _ in flat]) * scale[:, None], block([v for _, _, v in flat]))
    rows, cols = matrix_shape(batch.program, line.out, batch.sizes)
    gs = [
        gradient * np.matmul(block([u for u, _ in pairs]).swapaxes(1, 2), block([v for _, v in pairs])) if pairs
        else np.zeros((1, rows, cols), batch.dtype)
        for pairs in line.pairs
    ]
    seeds = max(g.shape[0] for g in gs)
    gs = [np.broadcast_to(g, (seeds, rows, cols)) for g in gs]
    return _Entries(np.asarray(line.rule.direction(gs, batch.at(line.eps)), batch.dtype), coef)
