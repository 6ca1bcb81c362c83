"""Execution at finite width: what every instruction does to arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from tensorprog.errors import RunError
from tensorprog.exponents.affine import Values
from tensorprog.finite.arrays import Arrays
from tensorprog.finite.draws import Draws, spread
from tensorprog.interp.rules import Rules
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    Joint,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Normal,
    Outer,
    ScalarType,
    VectorType,
)
from tensorprog.program.program import Program, spell

execute = Rules("execute")

#: Blocks of products are cut so that input and output stay below this many numbers.
_LARGEST_BLOCK = 1 << 26

#: Entries of an entrywise update that are formed at a time.
_TILE = 1 << 14


# ------------------------------------------------------------------------------------------------ matrices


class GaussianMatrix:
    """``mean * 1 1^T + std * G``, G of iid N(0, 1), drawn when first used."""

    def __init__(self, arrays: Arrays, mean: float, std: float, make: Callable[[], Any]):
        self.arrays, self.mean, self.std, self._make, self._core = arrays, mean, std, make, None

    def apply(self, block, transposed: bool):
        """Return the block of products with the vectors of a block."""
        if self._core is None:
            self._core = self._make()
        out = self._core.apply(block, transposed)
        if self.std != 1.0:
            out *= self.std
        if self.mean:
            for row, vector in zip(out, block, strict=True):
                row += self.mean * self.arrays.sum(vector)
        return out


class DenseMatrix:
    """A matrix by its entries."""

    def __init__(self, arrays: Arrays, entries):
        self.arrays, self.entries = arrays, entries

    def apply(self, block, transposed: bool):
        """Return the block of products with the vectors of a block."""
        return self.arrays.product(block, self.entries, transposed)


class LowRankMatrix:
    """``sum_s weight_s * U_s^T V_s`` with blocks U_s, V_s of shapes (k_s, rows), (k_s, cols): products cost O(n k)."""

    def __init__(self, terms):
        self.terms = terms

    def apply(self, block, transposed: bool):
        """Return the block of products with the vectors of a block."""
        out = None
        for weight, u, v in self.terms:
            if transposed:
                u, v = v, u
            part = (weight * (block @ v.T)) @ u
            if out is None:
                out = part
            else:
                out += part
        return out


@dataclass
class Env:
    """The state of a run: the values so far, and what the rules need besides."""

    program: Program
    arrays: Arrays
    draws: Draws
    sizes: dict[str, int]
    exponents: Values
    gaussian: Callable[[str, int, int], Callable[[], Any]]
    value: dict[str, Any] = field(default_factory=dict)
    blocks: WeakValueDictionary = field(default_factory=WeakValueDictionary)

    def at(self, scale) -> float:
        """Return a Scale as a number."""
        return scale.at(self.sizes, self.exponents)

    def block(self, names: tuple[str, ...]):
        """Return vectors as a block that all updates with these vectors share."""
        found = self.blocks.get(names)
        if found is None:
            self.blocks[names] = found = self.arrays.block([self.value[x] for x in names])
        return found

    def vector(self, line, x):
        """Return the result of a line whose type is a vector: a number means that all coordinates are equal."""
        if self.arrays.is_array(x):
            return x
        t = self.program.type_of(line.out)
        assert isinstance(t, VectorType)
        return self.arrays.full(self.sizes[t.dim.name], float(x))

    def shape(self, name: str) -> tuple[int, int]:
        """Return (rows, columns) of a matrix."""
        return matrix_shape(self.program, name, self.sizes)


def matrix_shape(program: Program, name: str, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Return (rows, columns) of a matrix of a program at the given sizes of its dimensions."""
    t = program.type_of(name)
    assert isinstance(t, MatrixType)
    return sizes[t.rows.name], sizes[t.cols.name]


# --------------------------------------------------------------------------------------------------- rules


@execute(Input)
def _(step, env: Env):
    (line,) = step
    law = line.law
    if isinstance(line.type, MatrixType):
        return (_matrix(line, env),)
    if isinstance(line.type, ScalarType):
        if isinstance(law, Constant):
            return (env.at(law.value),)
        return (float(env.draws.data(line.out, ())) if law.values is None else float(law.values[0]),)
    size = env.sizes[line.type.dim.name]
    return (env.arrays.of(_LAWS[type(law)](line, law, size, env)),)


def _normal(line, law: Normal, size: int, env: Env) -> np.ndarray:
    mean, std = env.at(law.mean), _std(line, env.at(law.variance))
    if std == 0.0:
        return np.full(size, mean, env.draws.dtype)
    z = env.draws.normal(line.out, (size,))
    z = z if std == 1.0 else std * z
    return z + mean if mean else z


def _joint(line, law: Joint, size: int, env: Env) -> np.ndarray:
    covariance = np.array([[env.at(c) for c in row] for row in law.covariance])
    factor = semidefinite_cholesky(covariance)
    if factor is None:
        raise RunError(spell(line), covariance.tolist(), "this is not a covariance matrix",
                       "make it symmetric and nonnegative")
    out = np.full(size, env.at(law.means[law.index]), env.draws.dtype)
    for name, weight in zip(law.group, factor[law.index], strict=True):
        if weight:
            out += float(weight) * env.draws.normal(name, (size,))
    return out


def _constant(line, law: Constant, size: int, env: Env) -> np.ndarray:
    return np.full(size, env.at(law.value), env.draws.dtype)


def _data(line, law: Data, size: int, env: Env) -> np.ndarray:
    if law.onehot is not None:
        out = np.zeros(size, env.draws.dtype)
        out[law.onehot] = 1
        return out
    if law.values is None:
        return env.draws.data(line.out, (size,))
    return np.array([float(x) for x in law.values], env.draws.dtype)


_LAWS = {Normal: _normal, Joint: _joint, Constant: _constant, Data: _data}


def _std(line, variance: float) -> float:
    if variance < 0:
        raise RunError(spell(line), variance, "a variance cannot be negative", "make it >= 0")
    return math.sqrt(variance)


def _matrix(line: Input, env: Env):
    rows, cols = env.shape(line.out)
    law: Any = line.law  # Normal or Constant: Program refuses others for a matrix
    constant = isinstance(law, Constant)
    mean, std = (env.at(law.value), 0.0) if constant else (env.at(law.mean), _std(line, env.at(law.variance)))
    if std == 0.0:
        ones = env.arrays.full(rows, 1.0)[None], env.arrays.full(cols, 1.0)[None]
        return LowRankMatrix([(mean, *ones)])
    return GaussianMatrix(env.arrays, mean, std, env.gaussian(line.out, rows, cols))


@execute(MatMul)
def _(step, env: Env):
    matrix, transposed = env.value[step[0].matrix], step[0].transposed
    most = max(1, _LARGEST_BLOCK // max(env.shape(step[0].matrix)))
    out = []
    for i in range(0, len(step), most):
        out.extend(matrix.apply(env.arrays.block([env.value[line.vector] for line in step[i : i + most]]), transposed))
    return out


@execute(Nonlin)
def _(step, env: Env):
    (line,) = step
    args = [env.value[a] for a in line.args]
    if isinstance(env.program.type_of(line.out), ScalarType):
        return (float(line.fn.evaluate(env.sizes, env.exponents, *args)),)
    plain = [env.arrays.numpy(a) if env.arrays.is_array(a) else a for a in args]
    y = line.fn.evaluate(env.sizes, env.exponents, *plain)
    if getattr(y, "ndim", 0):
        y = env.arrays.of(y.astype(env.draws.dtype, copy=False))
    return (env.vector(line, y),)


@execute(Moment)
def _(step, env: Env):
    (line,) = step
    args = [env.value[a] for a in line.args]
    size = args[0].shape[0]
    while len(args) > 2:
        args[:2] = [args[0] * args[1]]
    total = env.arrays.sum(args[0]) if len(args) == 1 else env.arrays.dot(*args)
    return (total / size if line.mean else total,)


@execute(Outer)
def _(step, env: Env):
    (line,) = step
    rule, coef, gradient = line.rule, env.at(line.coef), env.at(line.gradient)
    blocks = [
        (env.block(tuple(u for u, _ in pairs)), env.block(tuple(v for _, v in pairs))) if pairs else None
        for pairs in line.pairs
    ]
    if rule.linear:
        weights = rule.linear_weights(len(line.pairs) - 1)
        terms = [(float(w) * coef * gradient, *uv) for w, uv in zip(weights, blocks, strict=True) if uv is not None]
        return (LowRankMatrix([term for term in terms if term[0]] or terms[:1]),)
    return (DenseMatrix(env.arrays, env.arrays.of(_entrywise(env, line, blocks, gradient, coef))),)


def _entrywise(env: Env, line: Outer, blocks, gradient: float, coef: float) -> np.ndarray:
    """Return ``coef * Q(G_0, ..., G_t)`` for an entrywise rule, formed in tiles that stay in cache."""
    rows, cols = env.shape(line.out)
    dtype = env.draws.dtype
    factors = [None if uv is None else (gradient * env.arrays.numpy(uv[0]).T, env.arrays.numpy(uv[1])) for uv in blocks]
    rule: Any = line.rule
    eps, tall = env.at(line.eps), max(1, _TILE // cols)
    out = np.empty((rows, cols), dtype)

    def fill(start: int) -> None:
        here = slice(start, min(start + tall, rows))
        tiles = [np.zeros((here.stop - start, cols), dtype) if uv is None else uv[0][here] @ uv[1] for uv in factors]
        np.multiply(rule.direction(tiles, eps), coef, out=out[here])

    starts = range(0, rows, tall)
    # the tiles are independent and numpy lets go of the interpreter within each
    if rows * cols > 1 << 18:
        spread(fill, starts)
    else:
        for start in starts:
            fill(start)
    return out


def semidefinite_cholesky(covariance: np.ndarray) -> np.ndarray | None:
    """Return lower triangular L with ``L L^T = covariance``, degenerate ones included; None if there is none.

    >>> semidefinite_cholesky(np.array([[1.0, 1.0], [1.0, 1.0]])).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    k = len(covariance)
    factor = np.zeros((k, k))
    tiny = 1e-12 * max(float(np.max(np.abs(covariance), initial=0.0)), 1e-300)
    for j in range(k):
        column = covariance[:, j] - factor[:, :j] @ factor[j, :j]
        if column[j] > tiny:
            factor[j:, j] = column[j:] / math.sqrt(column[j])
    fits = np.allclose(factor @ factor.T, covariance, rtol=0, atol=1e3 * tiny)
    return factor if fits else None
