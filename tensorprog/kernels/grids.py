"""Networks whose layers are many vectors of one kind (the positions of a convolution), rows of pairs at a time.

    g_i = sum_k c_ik W_k y_r(i,k),    f_i = phi(g_i),    y_a = sum_i w_ai f_i  (what is pooled; or y_i = f_i)

    K[i, j] = sum_k s_k c_ik c_jk E[r(i,k), r(j,k)],          E[a, b] = sum_ij w_ai w_bj dual(K)[i, j],
    T[i, j] = sum_k s_k c_ik c_jk (rho E + T')[r(i,k), r(j,k)],   T'[a, b] = sum_ij w_ai w_bj (slopes' dual(K) T)[i, j].

This is what ``covariance`` and ``tangent`` say of any two positions one by one, which for a thousand pairs of positions
takes a thousand nodes a layer to write down and to run. Only pairs that the output needs are formed: those of equal
positions if nothing is pooled.

Source: novak2019bayesian (the recursion), arora2019exact (its tangent kernel).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.kernels.dual import Dual, dual
from tensorprog.kernels.expectations import Atom, Z
from tensorprog.kernels.plan import COL, ROW, Node
from tensorprog.kernels.rows import BLOCK
from tensorprog.kernels.tangent import Tangents, count
from tensorprog.kernels.tiles import ROOM, spans

#: The columns of every row's pairs, ascending.
Pairs = dict[int, np.ndarray]
#: Of a row below, columns that are added to columns of a row: (row below, to, from, coefficient); to a number: summed.
Run = tuple[int, "slice | int", slice, "float | None"]


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """Rows of pairs as sums over pairs below.

    Args:
        pairs: the pairs that are made; below: those they are sums of.
        runs: what is added, by row. scale: what stands before all of it.
        dying: by row, what rows below are not needed after it.
    """

    pairs: Pairs
    below: Pairs
    runs: dict[int, list[Run]]
    scale: float
    dying: dict[int, list[int]]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Gaussians of one layer and what is made of them.

    Args:
        mix: their covariances, of what is below. rate: rho; plus: what biases add to K and to T, by row.
        dual, variances: the function's dual and the nodes of K[i, i] (None, ()): of the output's layer.
        pool: sums of functions, if there are any.
    """

    mix: Mix
    rate: float
    plus: dict[int, tuple[np.ndarray, np.ndarray]]
    dual: Dual | None
    variances: tuple[Node, ...]
    pool: Mix | None


class Grid:
    """A kernel computed layer by layer in rows of pairs, tile by tile like a ``Schedule``.

    Attributes:
        inputs: the nodes of single inputs that ``run`` needs.
        width: how many arrays of a tile's shape are alive at once.
    """

    def __init__(self, layers: Sequence[Layer], data: Sequence[Node], tangent: bool):
        self.layers, self.data, self.tangent = layers, data, tangent
        self.inputs = [*data, *(q for layer in layers for q in layer.variances)]
        self.duals = [layer.dual for layer in layers if layer.dual is not None]
        self.longest = max(len(js) for layer in layers for js in (*layer.mix.pairs.values(), *layer.mix.below.values()))
        self.width = self._width()

    def _width(self) -> int:
        alive, most, each = 0, 1, 1 + self.tangent
        for i, layer in enumerate(self.layers):
            for mix in (layer.mix, *([layer.pool] if layer.pool else [])):
                for row, js in mix.pairs.items():
                    alive += each * len(js)
                    most = max(most, alive + 2 * self.longest + (i == 0) * sum(map(len, mix.below.values())))
                    alive -= each * sum(len(mix.below[u]) for u in mix.dying[row]) if i or mix is layer.pool else 0
        return most

    def features(self, one: Mapping[Any, np.ndarray]) -> dict[tuple[int, int], np.ndarray]:
        """Return what duals need of the inputs' variances beforehand, by the variance's node and the side."""
        out: dict[tuple[int, int], np.ndarray] = {}
        for layer in self.layers:
            known = [layer.dual.features(one[q.number]) for q in layer.variances] if layer.dual is not None and (
                layer.dual.both or not self.tangent) else []
            if all(x is not None for x in known):
                out |= {(q.number, side): x[side] for q, x in zip(layer.variances, known, strict=False) if x
                        for side in (ROW, COL)}
            if sum(x.size for x in out.values()) > ROOM:
                return {}
        return out

    def run(self, rows: Mapping[Any, np.ndarray], cols: Mapping[Any, np.ndarray], out: np.ndarray, free: list) -> None:
        """Write one tile; see ``Schedule.run``."""
        out[...] = _Tile(self, rows, cols, (len(out), out.shape[1]), out.dtype, free, False).result()[:, 0]

    def diagonal(self, one: Mapping[int, np.ndarray], n: int) -> np.ndarray:
        """Return K(x, x) of n inputs, exact where two positions of one input are alike."""
        step, free, out = max(1, ROOM // self.width), [], np.empty(n)
        for part in (slice(k, min(k + step, n)) for k in range(0, n, step)):
            here = {k: v[part] for k, v in one.items()}
            out[part] = _Tile(self, here, here, (part.stop - part.start, 1), out.dtype, free, True).result()[:, 0, 0]
        return out


@dataclass(slots=True, eq=False)
class _Tile:
    """The pairs of some rows and columns of inputs; ``alone``: of every input with itself, the columns' shape is 1.

    A row of pairs (i, js) is an array (R, len(js), C).
    """

    grid: Grid
    rows: Mapping[Any, np.ndarray]
    cols: Mapping[Any, np.ndarray]
    shape: tuple[int, int]
    dtype: np.dtype
    free: list
    alone: bool
    stacked: dict[tuple, np.ndarray] = field(default_factory=dict)

    def take(self, js: Sequence | np.ndarray) -> np.ndarray:
        r, c = self.shape
        size, longest = r * len(js) * c, r * self.grid.longest * c
        flat = self.free.pop() if self.free else np.empty(longest, self.dtype)
        if flat.size < size:
            flat = np.empty(longest, self.dtype)
        return flat[:size].reshape(r, len(js), c)

    def give(self, *arrays: np.ndarray) -> None:
        self.free += [x.base for x in arrays]

    def result(self) -> np.ndarray:
        values: dict[int, np.ndarray] = {}
        tangents: dict[int, np.ndarray] = {}
        layers = self.grid.layers
        for depth, layer in enumerate(layers):
            rate = layers[depth + 1].rate if depth + 1 < len(layers) else 0.0
            values, tangents = self.layer(layer, depth == 0, values, tangents, rate)
            if layer.pool is not None:
                values, tangents = self.pooled(layer.pool, values, tangents)
        return (tangents if self.grid.tangent else values)[0]

    def layer(self, layer: Layer, first: bool, values: dict, tangents: dict, rate: float) -> tuple[dict, dict]:
        made: dict[int, np.ndarray] = {}
        learnt: dict[int, np.ndarray] = {}
        mix = layer.mix
        for i, js in mix.pairs.items():
            if first:
                values |= {u: self.gram(u, mix.below[u]) for u, *_ in mix.runs[i] if u not in values}
            K, T = self.mixed(mix, i, js, values), None
            if self.grid.tangent and first:  # numbers of the data are not trained
                T = self.take(js)
                np.multiply(K, layer.rate, out=T)
            elif self.grid.tangent:
                T = self.mixed(mix, i, js, tangents)
            for u in mix.dying[i]:
                self.give(values.pop(u), *([tangents.pop(u)] if u in tangents else []))
            if i in layer.plus:
                more, trained = layer.plus[i]
                K += more.astype(self.dtype)[:, None]
                if T is not None:
                    T += trained.astype(self.dtype)[:, None]
            if layer.dual is None:
                made[i], learnt[i] = K, K if T is None else T
                continue
            slope = None if T is None else self.take(js)
            self.dual(layer, i, js, K, slope)
            made[i] = K
            if T is not None and slope is not None:
                slope *= T  # what products with this function have learnt, and what the next matrices will
                if rate:
                    slope += K if rate == 1 else np.multiply(K, rate, out=T)
                learnt[i] = slope
                self.give(T)
        return made, learnt

    def pooled(self, mix: Mix, values: dict, tangents: dict) -> tuple[dict, dict]:
        made: tuple[dict, dict] = ({}, {})
        for i, js in mix.pairs.items():
            for table, out in zip((values, tangents), made, strict=True):
                if table:
                    out[i] = self.mixed(mix, i, js, table)
            for u in mix.dying[i]:
                self.give(*(table.pop(u) for table in (values, tangents) if u in table))
        return made

    def mixed(self, mix: Mix, i: int, js: np.ndarray, table: Mapping[int, np.ndarray]) -> np.ndarray:
        total = self.take(js)
        total[...] = 0
        for u, to, at, coef in mix.runs[i]:
            x = table[u][:, at] if isinstance(to, slice) else table[u][:, at].sum(axis=1)
            here = total[:, to]
            np.add(here, x if coef is None else coef * x, out=here)
        if mix.scale != 1:
            total *= mix.scale
        return total

    def gram(self, u: int, js: np.ndarray) -> np.ndarray:
        out = self.take(js)
        x, y = self.rows[self.grid.data[u].number], self.stack([self.grid.data[j].number for j in js])
        if self.alone:
            np.einsum("nd,mnd->nm", x, y, out=out[:, :, 0])
        else:
            np.matmul(x, y.reshape(-1, y.shape[-1]).T, out=out.reshape(len(x), -1))
        return out

    def dual(self, layer: Layer, i: int, js: np.ndarray, K: np.ndarray, slope: np.ndarray | None) -> None:
        assert layer.dual is not None
        own, others = layer.variances[i].number, [layer.variances[j].number for j in js]
        q1, q2 = self.rows[own][:, None], self.stack(others)
        for k in np.flatnonzero(js == i):
            if self.alone:
                K[:, k, 0] = q1[:, 0]
            else:
                _snap(K[:, k], q1, q2[k])
        if self.alone:
            flat = [None if x is None else x.reshape(-1, 1) for x in (K, slope)]
            layer.dual.block(np.repeat(q1, len(js), axis=0), q2.T.reshape(-1, 1), flat[0], *flat)
            return
        flat = [None if x is None else x.reshape(len(K), -1) for x in (K, slope)]
        if (own, ROW) not in self.rows or (own, COL) not in self.cols:
            layer.dual.block(q1, q2.reshape(1, -1), flat[0], *flat)
            return
        left, right = self.rows[own, ROW], self.stack([(k, COL) for k in others])
        right = right.reshape(-1, right.shape[-1])
        for part in spans(len(right), max(1, BLOCK // len(K))):
            c, slopes = (None if x is None else x[:, part] for x in flat)
            layer.dual.tile(left, right[part], c, c, slopes)

    def stack(self, keys: Sequence) -> np.ndarray:
        """Return what the columns have, for one key after the other: (keys, C) or (keys, C, d)."""
        found = tuple(keys)
        if found not in self.stacked:
            self.stacked[found] = np.stack([self.cols[k] for k in found])
        return self.stacked[found]


def _snap(c: np.ndarray, q1: np.ndarray, q2: np.ndarray) -> None:
    """Make of covariances of equal inputs, sums in another order than their variances, what correlation 1 has."""
    size = np.sqrt(q1 * q2)
    near = np.abs(c) > (1 - 64 * np.finfo(c.dtype).eps) * size
    if near.any():
        np.copysign(size, c, out=c, where=near)


# ------------------------------------------------------------------------------------------------ finding layers


@dataclass(slots=True, eq=False)
class _Terms:
    """A layer's sums, one a row: of each, columns of ``at`` (the index of what is below, or -1) with ``coefs``; in
    products of two terms of a column its gain."""

    at: np.ndarray
    coefs: np.ndarray
    gains: np.ndarray


@dataclass(slots=True, eq=False)
class _Sums:
    """The Gaussians of a layer: terms in matrices, of what is below, and what terms in biases add up to."""

    terms: _Terms
    rate: float
    below: list
    biases: list[tuple[np.ndarray, float, float]]  # coefficients by atom, what they add to K and to T


class _NotAGrid(Exception):
    """The network is written out pair by pair then."""


def find(x: Any, cov: Tangents, tangent: bool) -> Grid | None:
    """Return the grid that computes an output's kernel, None if its layers are not alike or have one vector each.

    Example:
        >>> import tensorprog as tp
        >>> from tensorprog.kernels.kernel import nngp
        >>> cov = nngp(tp.nets.cnn(2, size=5, activation="relu")).covariances
        >>> grid = find(cov.env["f"], cov, False)
        >>> [len(layer.mix.pairs) for layer in grid.layers], grid.width
        ([5, 5, 1], 60)
    """
    try:
        return _find(x, cov, tangent)
    except _NotAGrid:
        return None


def _find(x: Any, cov: Tangents, tangent: bool) -> Grid:
    root = x.alone if isinstance(x, Z) else None
    if root is None or tangent and x.wide:
        raise _NotAGrid
    level: list[Atom] = [root]
    found: list[tuple[_Sums, list[Atom], _Terms | None]] = []
    while True:
        sums = _sums(level, cov, tangent)
        if not isinstance(sums.below[0], Atom):
            break
        pools, functions = _pools(sums.below)
        found.append((sums, functions, pools))
        level = [f.inside.alone for f in functions]
    if all(len(functions) < 2 for _, functions, _ in found) or tangent and not any(
            s.rate or any(t for _, _, t in s.biases) for s in (sums, *(s for s, _, _ in found))):
        raise _NotAGrid
    pairs: Pairs = {0: np.zeros(1, int)}
    layers, above = [], None
    for part, functions, pools in [*found, (sums, [], None)]:
        needed = _below(pairs, part.terms, False)
        mix = _mix(pairs, needed, part.terms, False)
        layers.append((part, mix, above))
        pool, pairs = None, needed
        if pools is not None:
            pairs = _below(needed, pools, True)
            pool = _mix(pairs=needed, below=pairs, terms=pools, every=True)
        above = functions, pool
    made = []
    for part, mix, over in reversed(layers):
        functions, pool = over or ([], None)
        gs = [f.inside.alone for f in functions]
        variances = tuple(cov.settle(lambda g=g: cov.covariance(g, g, False)) for g in gs)
        made.append(Layer(mix, part.rate, _plus(mix.pairs, part), dual(functions[0].fn) if functions else None,
                          variances, pool))
    return Grid(made, sums.below, tangent)


def _sums(level: Sequence[Atom], cov: Tangents, tangent: bool) -> _Sums:
    """Read the Gaussians of a layer as sums of products with matrices, each matrix once in each."""
    columns: dict[str, int] = {}
    facts: list[tuple[float, float]] = []
    entries: list[tuple[int, int, float, Any]] = []  # atom, matrix, coefficient, what it is of
    for i, g in enumerate(level):
        terms = [(1.0, Fraction(0), (), g)] if g.kind == "product" else [t for ts in (g.families or {}).values()
                                                                         for t in ts]
        if not g.gaussian or len({a.family[0].name for _, _, _, a in terms if a.kind == "product"}) < len(terms):
            raise _NotAGrid
        for c, e, fs, a in terms:
            matrix, cols = a.family
            inside = a.inside
            if fs or a.value is not None and not a.value.is_zero or a.value is None and (e or a.power):
                raise _NotAGrid
            if isinstance(inside, Z):
                c, inside = c * next(iter(inside.terms.values())), _single(inside)
            power = matrix.rate_power + 2 * (e - a.power) + (cols.growth if isinstance(inside, Atom) else 0)
            if inside is None or tangent and matrix.rate and power > 0:
                raise _NotAGrid
            if matrix.name not in columns:
                columns[matrix.name] = len(facts)
                rate = matrix.rate * count(cols, a.inside) if power == 0 and tangent else 0.0
                facts.append((a.gain if a.value is None else 0.0, rate))
            entries.append((i, columns[matrix.name], c, inside))
    constants = {k for _, k, _, x in entries if isinstance(x, Node) and x.op == "array"}
    below = list(dict.fromkeys(x for _, k, _, x in entries if k not in constants))
    if len({type(x) for x in below}) != 1:
        raise _NotAGrid
    ratios = {facts[k][1] / facts[k][0] if facts[k][0] else None for _, k, _, _ in entries if k not in constants}
    if len(ratios) != 1 or None in ratios:
        raise _NotAGrid
    where = {x: n for n, x in enumerate(below)}
    at, coefs = np.full((len(level), len(facts)), -1), np.zeros((len(level), len(facts)))
    biases: dict[int, list[tuple[int, float, Any]]] = {}
    for i, k, c, x in entries:
        if k in constants:
            biases.setdefault(k, []).append((i, c, x))
        else:
            at[i, k], coefs[i, k] = where[x], c
    added = []
    for k, terms in biases.items():
        if len({x for _, _, x in terms}) > 1:
            raise _NotAGrid
        weights, square = np.zeros(len(level)), float(np.dot(terms[0][2].data, terms[0][2].data))
        for i, c, _ in terms:
            weights[i] = c
        added.append((weights, facts[k][0] * square, facts[k][1] * square))
    return _Sums(_Terms(at, coefs, np.array([gain for gain, _ in facts])), ratios.pop(), below, added)  # type: ignore[arg-type]


def _single(z: Z) -> Atom | None:
    """Return the atom that a coordinate is a multiple of."""
    (_, e, fs, atoms), *more = z.listed() or [(0.0, Fraction(0), (), [])]
    return None if more or e or fs or len(atoms) != 1 else atoms[0]


def _pools(below: Sequence[Atom]) -> tuple[_Terms | None, list[Atom]]:
    """Read what matrices are applied to as functions of single Gaussians, or sums of those; all are one function."""
    sums: list[list[tuple[float, Atom]]] = []
    for y in below:
        terms = [(1.0, Fraction(0), (), [y])] if y.kind == "function" else y.inside.listed() if y.flat else []
        if not terms or any(e or fs or len(atoms) != 1 or atoms[0].kind != "function" for _, e, fs, atoms in terms):
            raise _NotAGrid
        sums.append([(c, atoms[0]) for c, _, _, atoms in terms])
    functions = list(dict.fromkeys(f for terms in sums for _, f in terms))
    for f in functions:
        if f.value is not None or f.fn != functions[0].fn or f.inside.alone is None or not f.inside.alone.gaussian:
            raise _NotAGrid
    if all(len(terms) == 1 and terms[0][0] == 1.0 for terms in sums):
        return None, functions
    where = {f: n for n, f in enumerate(functions)}
    at = np.full((len(sums), max(map(len, sums))), -1)
    coefs = np.zeros(at.shape)
    for i, terms in enumerate(sums):
        for k, (c, f) in enumerate(terms):
            at[i, k], coefs[i, k] = where[f], c
    return _Terms(at, coefs, np.ones(at.shape[1])), functions


def _plus(pairs: Pairs, sums: _Sums) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    if not any(k or t for _, k, t in sums.biases):
        return {}
    return {i: (np.sum([k * w[i] * w[js] for w, k, _ in sums.biases], axis=0),
                # the first layer's T is rho K before biases are added, so both are said here
                np.sum([t * w[i] * w[js] for w, _, t in sums.biases], axis=0)) for i, js in pairs.items()}


# ------------------------------------------------------------------------------------------------ pairs and runs


def _below(pairs: Pairs, terms: _Terms, every: bool) -> Pairs:
    """Return the pairs that sums over pairs need: of terms in one column, or of every two."""
    width, codes = int(terms.at.max()) + 1, []
    for i, js in pairs.items():
        u, v = terms.at[i], terms.at[js]
        if every:
            codes.append((u[u >= 0][:, None] * width + np.unique(v[v >= 0])).ravel())
        else:
            codes.append((u * width + v)[(u >= 0) & (v >= 0)])
    found = np.unique(np.concatenate(codes))
    rows, starts = np.unique(found // width, return_index=True)
    return {int(u): part % width for u, part in zip(rows, np.split(found, starts[1:]), strict=True)}


def _mix(pairs: Pairs, below: Pairs, terms: _Terms, every: bool) -> Mix:
    """Return how rows of pairs are made of rows below."""
    runs: dict[int, list[Run]] = {}
    for i, js in pairs.items():
        found: list[Run] = []
        for k in np.flatnonzero(terms.at[i] >= 0):
            u = int(terms.at[i, k])
            at, coefs = terms.at[js], terms.coefs[i, k] * terms.gains[k] * terms.coefs[js]
            if not every:
                found += _runs(u, at[:, k], coefs[:, k], below[u])
            elif len(js) > at.shape[1]:
                found += [run for t in range(at.shape[1]) for run in _runs(u, at[:, t], coefs[:, t], below[u])]
            else:
                found += [run for j in range(len(js)) for run in _summed(u, j, at[j], coefs[j], below[u])]
        runs[i] = found
    scales = np.array([c for found in runs.values() for *_, c in found])
    scale = float(scales[0]) if np.allclose(scales, scales[0], rtol=1e-14, atol=0) else 1.0
    if scale != 1.0 or np.all(scales == 1.0):
        runs = {i: [(u, to, at, None) for u, to, at, _ in found] for i, found in runs.items()}
    last = {u: i for i, found in runs.items() for u, *_ in found}
    dying: dict[int, list[int]] = {i: [] for i in pairs}
    for u, i in last.items():
        dying[i].append(u)
    return Mix(pairs, below, runs, scale, dying)


def _runs(u: int, at: np.ndarray, coefs: np.ndarray, columns: np.ndarray) -> Iterable[Run]:
    """Return one term of every pair of a row, as few slices as their order allows."""
    to = np.flatnonzero(at >= 0)
    source, coefs = np.searchsorted(columns, at[to]), coefs[to]
    for start, stop, step in _arithmetic(source, (np.diff(to) != 1) | (np.diff(coefs) != 0)):
        last = int(source[stop - 1])
        yield u, slice(int(to[start]), int(to[stop - 1]) + 1), slice(int(source[start]), last + 1, step), float(
            coefs[start])


def _summed(u: int, j: int, at: np.ndarray, coefs: np.ndarray, columns: np.ndarray) -> Iterable[Run]:
    """Return all terms of one pair."""
    known = np.flatnonzero(at >= 0)
    source, order = np.searchsorted(columns, at[known]), np.argsort(at[known])
    source, coefs = source[order], coefs[known][order]
    for start, stop, step in _arithmetic(source, np.diff(coefs) != 0):
        yield u, j, slice(int(source[start]), int(source[stop - 1]) + 1, step), float(coefs[start])


def _arithmetic(xs: np.ndarray, breaks: np.ndarray) -> Iterable[tuple[int, int, int]]:
    """Return parts of ascending numbers that are equal steps apart, (start, stop, step), cut at the breaks.

    >>> list(_arithmetic(np.array([0, 2, 4, 5, 7]), np.zeros(4, bool)))
    [(0, 3, 2), (3, 5, 2)]
    """
    gaps = np.diff(xs)
    up = gaps[gaps > 0]
    step = int(np.bincount(up).argmax()) if len(up) else 1
    cuts = np.flatnonzero((gaps != step) | breaks) + 1
    edges = [0, *cuts.tolist(), len(xs)]
    return [(a, b, step) for a, b in zip(edges, edges[1:], strict=False) if b > a]
