"""Run a program at finite width, as it stands: every line on arrays of the sizes that its dimensions have at n."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorprog.errors import RunError
from tensorprog.exponents.affine import Values
from tensorprog.finite.arrays import Arrays
from tensorprog.finite.dense import DrawnGaussian
from tensorprog.finite.draws import Draws
from tensorprog.finite.execute import Env, execute, matrix_shape
from tensorprog.finite.matrix_free import LazyGaussian
from tensorprog.finite.schedule import Schedule, schedule
from tensorprog.program.instructions import Input, MatMul, MatrixType, Normal, Outer
from tensorprog.program.program import Program, spell

METHODS = ("auto", "dense", "matrix-free")

#: The time of an entrywise update of at most this many entries does not count.
_CHEAP = 1 << 17

#: The time that a drawn product takes whatever its size, in numbers drawn.
_USE = 8000


@dataclass(frozen=True)
class Run:
    """What a run leaves behind.

    Args:
        n: the scale; ``seed``: the replicate; ``method``: "dense" or "matrix-free", the one that was used.
        kept: the variables asked for: vectors as numpy arrays (size,), scalars as floats.
        sizes: of every vector its root mean square coordinate, of every scalar its absolute value.
    """

    n: int
    seed: int
    method: str
    kept: Mapping[str, Any] = field(repr=False)
    sizes: Mapping[str, float] = field(repr=False)

    def __getitem__(self, name: str):
        """Return a kept variable; raises RunError if it was not kept."""
        try:
            return self.kept[name]
        except KeyError:
            raise RunError(name, name, "this variable was not kept", f"run(..., keep=[{name!r}])") from None

    def size(self, name: str) -> float:
        """Return the root mean square over a vector's coordinates, or a scalar's absolute value."""
        try:
            return self.sizes[name]
        except KeyError:
            raise RunError(name, name, "no size is known of this name", "name a vector or a scalar") from None


def run(program: Program, n: int, seed: int, *, values: Values | None = None, dtype: str = "float64",
        method: str = "auto", keep: Iterable[str] | str | None = None, draws: Draws | None = None,
        backend: str = "numpy", data_seed: int = 0) -> Run:
    """Execute a program at scale n and return the sizes of all its variables, and those variables asked for.

    Every random matrix and vector has its own stream, keyed by (seed, n, name), so a run is a function of its
    arguments and not of the order of lines. Variables are freed after their last use.

    Args:
        program: any program; its unknown exponents must be in ``values``.
        n: the scale; dimension D has ``D.at(n)`` coordinates.
        seed: the replicate.
        values: the unknown exponents ("a[W]", "b[W]", "c[W]", "alpha"), exact rationals.
        dtype: "float64" or "float32".
        method: "dense" forms the random matrices; "matrix-free" draws their products from the exact conditional law
            (``LazyGaussian``), in O(n) memory; "auto" takes the cheaper one, matrix by matrix.
        keep: names to keep besides scalars and outputs, or "all".
        draws: standard normals shared with other runs at this n and seed.
        backend: "numpy" or "torch" (an extra).
        data_seed: of generic data, which is the same at every width and replicate.

    Returns:
        ``Run``: ``run[name]``, ``run.size(name)``.

    Raises:
        RunError: for an unknown method, backend or name, or ``draws`` of another width, seed or precision.
        NotCoveredError: if an exponent has no value.
        MissingExtraError: if the backend is not installed.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> x = p.vector("x", n)
        >>> p.output(p.mean(x * x))
        >>> r = run(p, 10_000, seed=0)
        >>> abs(r.size("x") - 1) < 0.05, r[p.outputs[0]] == r.size(p.outputs[0])
        (True, True)
    """
    if method not in METHODS:
        raise RunError("run", method, "no such method", "use one of: " + ", ".join(METHODS))
    if draws is None:
        draws = Draws(n, seed, dtype, data_seed=data_seed, cache=False)
    elif (draws.n, draws.seed, draws.dtype) != (n, seed, np.dtype(dtype)):
        raise RunError("run", (draws.n, draws.seed, str(draws.dtype)), "these draws are of another run",
                       f"Draws({n}, {seed}, {dtype!r})")
    kept_names = _names(program, keep)
    arrays = _arrays(backend, dtype)
    plan, sizes = schedule(program), program.sizes(n)
    lazy = _matrix_free(program, plan, sizes, method)
    env = Env(program, arrays, draws, sizes, values or {}, _maker(arrays, draws, plan, lazy))
    kept: dict[str, Any] = {}
    measured: dict[str, float] = {}
    with np.errstate(all="ignore"):
        for step, dying in zip(plan.steps, plan.dying, strict=True):
            for line, x in zip(step, _results(step, env), strict=True):
                env.value[line.out] = x
                if isinstance(x, float):
                    kept[line.out], measured[line.out] = x, abs(x)
                elif arrays.is_array(x):
                    measured[line.out] = arrays.norm(x) / math.sqrt(x.shape[0])
                    if line.out in kept_names:
                        kept[line.out] = np.array(arrays.numpy(x))
            for name in dying:
                del env.value[name]
    return Run(n, seed, "matrix-free" if lazy else "dense", kept, measured)


def _results(step, env: Env):
    try:
        return execute[step[0]](step, env)
    except OverflowError:
        raise RunError(spell(step[0]), env.draws.n, "a power of n in this line is not a finite number",
                       "use smaller exponents or a smaller width") from None


def _names(program: Program, keep) -> frozenset[str]:
    if keep == "all":
        return frozenset(program.names)
    names = [keep] if isinstance(keep, str) else list(keep or ())
    for name in names:
        if isinstance(program.type_of(name), MatrixType):
            raise RunError(spell(program.line_of(name)), name, "matrices are not kept", "keep a product with it")
    return frozenset((*names, *program.outputs))


def _arrays(backend: str, dtype: str) -> Arrays:
    if backend == "numpy":
        return Arrays(dtype)
    if backend.split(":")[0] == "torch":
        from tensorprog.finite.torch_backend import torch_arrays

        return torch_arrays(dtype, backend.partition(":")[2] or "cpu")
    raise RunError("run", backend, "no such backend", "use numpy or torch")


def _matrix_free(program: Program, plan: Schedule, sizes: Mapping[str, int], method: str) -> frozenset[str]:
    """Return the random matrices whose products are drawn instead of their entries."""
    if method == "dense":
        return frozenset()
    if method == "auto" and any(_is_dense(program, line, sizes) for line in program.lines):
        return frozenset()  # an entrywise update has as many entries as the matrix, so nothing would be saved
    lazy = []
    for line in program.lines:
        if isinstance(line, Input) and isinstance(line.law, Normal) and line.out in plan.products:
            shape, uses = matrix_shape(program, line.out, sizes), plan.products[line.out]
            if method == "matrix-free" or (min(shape) > 64 and _products_are_cheaper(shape, uses)):
                lazy.append(line.out)
    return frozenset(lazy)


def _products_are_cheaper(shape: tuple[int, int], uses: tuple[int, int]) -> bool:
    """Whether drawing the products of a matrix takes less time than drawing its entries.

    Both in numbers drawn (some 10 ns each), and not by the number of threads: the choice decides which numbers are.
    """
    (rows, cols), k = shape, sum(uses)
    entries = rows * cols * (1 + k / 50)
    products = k * _USE + uses[0] * rows + uses[1] * cols + k * k * (rows + cols) / 10
    return products < entries


def _is_dense(program: Program, line: Any, sizes: Mapping[str, int]) -> bool:
    """Whether a line is an update whose entries are formed, and they are many."""
    if not isinstance(line, Outer):
        return False
    rule: Any = line.rule
    return not rule.linear and math.prod(matrix_shape(program, line.out, sizes)) > _CHEAP


def is_dense(program: Program, n: int, method: str = "auto") -> bool:
    """Return whether ``run`` forms all random matrices of a program at scale n."""
    return not _matrix_free(program, schedule(program), program.sizes(n), method)


def _maker(arrays: Arrays, draws: Draws, plan: Schedule, lazy: frozenset[str]):
    """Return the function that makes the standard normal matrix of a name: its entries, or a sampler of products."""

    steps = Counter(step[0].matrix for step in plan.steps if isinstance(step[0], MatMul))

    def gaussian(name: str, rows: int, cols: int):
        if name in lazy:
            return lambda: LazyGaussian((rows, cols), draws, name, uses=plan.products[name], arrays=arrays)
        return lambda: DrawnGaussian((rows, cols), draws, name, arrays, once=steps[name] == 1)

    return gaussian


__all__ = ["METHODS", "Run", "is_dense", "run"]
