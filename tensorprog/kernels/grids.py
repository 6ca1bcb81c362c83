"""Networks whose layers are many vectors of one kind (the positions of a convolution): whole layers of pairs at once.

    g_i = sum_k c_ik W_k y_r(i,k),    f_i = phi(g_i),    y_a = sum_i w_ai f_i  (what is pooled; or y_i = f_i)

    K[i, j] = sum_k s_k c_ik c_jk E[r(i,k), r(j,k)],          E[a, b] = sum_ij w_ai w_bj dual(K)[i, j],
    T[i, j] = sum_k s_k c_ik c_jk (rho E + T')[r(i,k), r(j,k)],   T'[a, b] = sum_ij w_ai w_bj (slopes' dual(K) T)[i, j].

This is what ``covariance`` and ``tangent`` say of any two positions one by one, which for a thousand pairs of positions
takes a thousand nodes a layer to write down and to run. Here sums over k and over windows are sparse matrices, and only
pairs that the output needs are formed: those of equal positions if nothing is pooled.

Source: novak2019bayesian (the recursion), arora2019exact (its tangent kernel).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.kernels.dual import Dual, dual
from tensorprog.kernels.expectations import Atom, Z
from tensorprog.kernels.plan import Node
from tensorprog.kernels.rows import BLOCK
from tensorprog.kernels.tangent import Tangents, count
from tensorprog.kernels.tiles import ROOM, ROWS, spans

#: Pairs that the formula of a dual takes at once, on average, if it is called for those of a few positions at a time.
WHOLE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs (i, j) of positions, ascending; ``blocks``: parts that are all pairs of some i with some j."""

    i: np.ndarray
    j: np.ndarray
    blocks: tuple[tuple[slice, np.ndarray, np.ndarray], ...]

    @staticmethod
    def of(codes: np.ndarray, width: int) -> Pairs:
        """Return the pairs of ascending numbers ``i width + j``."""
        i, j = codes // width, codes % width
        starts = [*np.flatnonzero(np.diff(i, prepend=-1)), len(i)]
        blocks: list[tuple[slice, list[int], np.ndarray]] = []
        for a, b in zip(starts, starts[1:], strict=False):
            if blocks and np.array_equal(blocks[-1][2], j[a:b]):
                blocks[-1] = slice(blocks[-1][0].start, b), [*blocks[-1][1], int(i[a])], j[a:b]
            else:
                blocks.append((slice(a, b), [int(i[a])], j[a:b]))
        return Pairs(i, j, tuple((part, np.array(rows), cols) for part, rows, cols in blocks))

    @property
    def whole(self) -> bool:
        """Whether its blocks are worth a call of a formula each."""
        return len(self.i) >= WHOLE * len(self.blocks)


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """Pairs as sums of pairs below: by a sparse matrix (of either type of numbers)."""

    pairs: Pairs
    below: Pairs
    matrices: Mapping[np.dtype, Any]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the sums, (pairs, numbers of a tile)."""
        return self.matrices[x.dtype] @ x


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Gaussians of one layer and what is made of them.

    Args:
        mix: their covariances, of what is below. rate: rho. plus: what biases add to K and to T, by pair.
        dual, variances: the function's dual and the nodes of K[i, i] (None, ()): of the output's layer.
        pool: sums of functions, if there are any.
    """

    mix: Mix
    rate: float
    plus: tuple[np.ndarray, np.ndarray] | None
    dual: Dual | None
    variances: tuple[Node, ...]
    pool: Mix | None


class Grid:
    """A kernel computed layer by layer for all pairs of positions, tile by tile like a ``Schedule``.

    Attributes:
        inputs: the nodes of single inputs that ``run`` needs.
        width: how many arrays of a tile's shape are alive at once.
        rows: how many rows a tile may have.
    """

    def __init__(self, layers: Sequence[Layer], data: Sequence[Node], tangent: bool):
        self.layers, self.data, self.tangent = layers, data, tangent
        self.inputs = [*data, *(q for layer in layers for q in layer.variances)]
        self.duals = [layer.dual for layer in layers if layer.dual is not None]
        mixes = [mix for layer in layers for mix in (layer.mix, layer.pool) if mix is not None]
        self.width = max(len(x.below.i) * (1 + tangent) + len(x.pairs.i) * (1 + 2 * tangent) for x in mixes)
        # all pairs of many positions are a matrix, if each position has one row
        self.rows = 1 if any(x.whole for mix in mixes for x in (mix.pairs, mix.below)) else ROWS

    def run(self, rows: Mapping[Any, np.ndarray], cols: Mapping[Any, np.ndarray], out: np.ndarray, free: list) -> None:
        """Write one tile; see ``Schedule.run``."""
        out[...] = _Tile(self, rows, cols, (len(out), out.shape[1]), out.dtype).result().reshape(out.shape)

    def diagonal(self, one: Mapping[int, np.ndarray], n: int) -> np.ndarray:
        """Return K(x, x) of n inputs, exact where two positions of one input are alike."""
        out = np.empty(n)
        for part in spans(n, max(1, ROOM // self.width)):
            here = {k: v[part] for k, v in one.items()}
            out[part] = _Tile(self, here, here, (1, part.stop - part.start), out.dtype, True).result()[0]
        return out


@dataclass(slots=True, eq=False)
class _Tile:
    """The pairs of some rows and columns of inputs; ``alone``: of every input with itself, the rows' shape is 1.

    What pairs of positions have is an array (pairs, R * C).
    """

    grid: Grid
    rows: Mapping[Any, np.ndarray]
    cols: Mapping[Any, np.ndarray]
    shape: tuple[int, int]
    dtype: np.dtype
    alone: bool = False

    def result(self) -> np.ndarray:
        layers, learns = self.grid.layers, self.grid.tangent
        K, T = self.gram(layers[0].mix.below), np.empty(0)
        for depth, layer in enumerate(layers):
            K, old = layer.mix(K), K
            if learns:  # numbers of the data are not trained
                T = layer.mix(T) if depth else np.multiply(K, layer.rate, out=old if old.shape == K.shape else None)
            del old
            if layer.plus is not None:
                K += layer.plus[0].astype(self.dtype)[:, None]
                if learns:
                    T += layer.plus[1].astype(self.dtype)[:, None]
            if layer.dual is None:
                break
            slope = np.empty_like(K) if learns else None
            self.dual(layer, K, slope)
            if slope is not None:
                slope *= T  # what products with this function have learnt, and what the next matrices will
                rate = layers[depth + 1].rate
                if rate:
                    slope += K if rate == 1 else np.multiply(K, rate, out=T)
                T = slope
            if layer.pool is not None:
                K, T = layer.pool(K), layer.pool(T) if learns else T
        return T if learns else K

    def gram(self, pairs: Pairs) -> np.ndarray:
        data = [np.stack([side[x.number] for x in self.grid.data]) for side in (self.rows, self.cols)]
        out = np.empty((len(pairs.i), self.shape[0] * self.shape[1]), self.dtype)
        for part, i, j in pairs.blocks:
            x, y = data[0][i], data[1][j]
            if self.alone:
                np.einsum("ind,jnd->ijn", x, y, out=out[part].reshape(len(i), len(j), -1))
            elif len(j) == 1 or len(x[0]) == 1:  # rows of a block: positions and inputs; or one of the two
                x, y = (a.reshape(-1, a.shape[-1]) for a in (x, y))
                np.matmul(x, y.T, out=out[part].reshape(len(x), -1))
            else:
                np.einsum("ird,jcd->ijrc", x, y, out=out[part].reshape(len(i), len(j), *self.shape), optimize=True)
        return out

    def dual(self, layer: Layer, K: np.ndarray, slope: np.ndarray | None) -> None:
        assert layer.dual is not None
        pairs, names = layer.mix.pairs, [q.number for q in layer.variances]
        q1, q2 = (np.stack([side[k] for k in names]) for side in (self.rows, self.cols))
        same = np.flatnonzero(pairs.i == pairs.j)
        if self.alone:
            K[same] = q1[pairs.i[same]]
        else:
            _snap(K, same, q1[pairs.i[same]], q2[pairs.i[same]])
        left, right = layer.dual.features(q1.ravel()), layer.dual.features(q2.ravel())
        if self.alone or left is None or right is None or slope is not None and not layer.dual.both:
            self.blocks(layer.dual, pairs, q1, q2, K, slope)
            return
        rows, cols = left[0].reshape(*q1.shape, -1), right[1].reshape(*q2.shape, -1)
        if not pairs.whole:
            for p, (i, j) in enumerate(zip(pairs.i, pairs.j, strict=True)):
                c, slopes = K[p].reshape(self.shape), None if slope is None else slope[p].reshape(self.shape)
                layer.dual.tile(rows[i], cols[j], c, c, slopes)
            return
        for part, i, j in pairs.blocks:
            c, slopes = K[part].reshape(len(i), -1), None if slope is None else slope[part].reshape(len(i), -1)
            x, y = rows[i, 0], cols[j].reshape(-1, cols.shape[-1])
            for at in spans(len(y), max(1, BLOCK // len(x))):
                layer.dual.tile(x, y[at], c[:, at], c[:, at], None if slopes is None else slopes[:, at])

    def blocks(self, fn: Dual, pairs: Pairs, q1: np.ndarray, q2: np.ndarray, K: np.ndarray,
               slope: np.ndarray | None) -> None:
        """Write the duals where variances are 0, or of functions without a closed form."""
        if self.alone:
            c, slopes = K.reshape(-1, 1), None if slope is None else slope.reshape(-1, 1)
            fn.block(q1[pairs.i].reshape(-1, 1), q2[pairs.j].reshape(-1, 1), c, c, slopes)
            return
        parts = pairs.blocks if pairs.whole else [(slice(p, p + 1), [i], [j]) for p, (i, j) in enumerate(
            zip(pairs.i, pairs.j, strict=True))]
        for part, i, j in parts:
            left = q1[i].reshape(-1, 1)
            c, slopes = (None if x is None else x[part].reshape(len(left), -1) for x in (K, slope))
            fn.block(left, q2[j].reshape(1, -1), c, c, slopes)


def _snap(K: np.ndarray, same: np.ndarray, q1: np.ndarray, q2: np.ndarray) -> None:
    """Make of covariances of equal inputs, sums in another order than their variances, what correlation 1 has."""
    c, most = K if len(same) == len(K) else K[same], (q1 * (1 - 128 * np.finfo(K.dtype).eps))[:, :, None] * q2[:, None]
    at = np.flatnonzero(c * c > most.reshape(c.shape))
    if len(at):
        size = np.sqrt(q1[:, :, None] * q2[:, None]).ravel()[at]
        row, number = np.divmod(at, c.shape[1])
        K[same[row], number] = np.copysign(size, c.ravel()[at])



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
        >>> [len(layer.mix.pairs.i) for layer in grid.layers]
        [25, 25, 1]
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
    pairs = Pairs.of(np.zeros(1, int), 1)
    made: list[Layer] = []
    functions, pool = [], None
    for part, below, pools in [*found, (sums, [], None)]:
        mix = _mix(pairs, part.terms, False)
        gs = [f.inside.alone for f in functions]
        variances = tuple(cov.settle(lambda g=g: cov.covariance(g, g, False)) for g in gs)
        made.append(Layer(mix, part.rate, _plus(pairs, part), dual(functions[0].fn) if functions else None, variances,
                          pool))
        functions, pool = below, None if pools is None else _mix(mix.below, pools, True)
        pairs = mix.below if pool is None else pool.below
    return Grid(made[::-1], sums.below, tangent)


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
    ratio = ratios.pop() if len(ratios) == 1 else None
    if ratio is None:
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
    return _Sums(_Terms(at, coefs, np.array([gain for gain, _ in facts])), ratio, below, added)


def _single(z: Z) -> Atom | None:
    """Return the atom that a coordinate is a multiple of."""
    (_, e, fs, atoms), *more = z.listed() or [(0.0, Fraction(0), (), [])]
    return None if more or e or fs or len(atoms) != 1 else atoms[0]


def _pools(below: Sequence[Atom]) -> tuple[_Terms | None, list[Atom]]:
    """Read what matrices are applied to as functions of single Gaussians, or sums of those; all are one function."""
    sums = [list(_written_out(y, 1.0)) for y in below]
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


def _written_out(y: Atom, coef: float) -> Iterator[tuple[float, Atom]]:
    """Return the functions that a sum is of, and of the sums in it."""
    if y.kind == "function":
        yield coef, y
        return
    terms = y.inside.listed() if y.flat and not y.gaussian else []
    if not terms or any(e or fs or len(atoms) != 1 for _, e, fs, atoms in terms):
        raise _NotAGrid
    for c, _, _, atoms in terms:
        yield from _written_out(atoms[0], coef * c)


def _plus(pairs: Pairs, sums: _Sums) -> tuple[np.ndarray, np.ndarray] | None:
    if not any(k or t for _, k, t in sums.biases):
        return None
    both = [(w[pairs.i] * w[pairs.j], k, t) for w, k, t in sums.biases]
    return np.sum([k * w for w, k, _ in both], axis=0), np.sum([t * w for w, _, t in both], axis=0)


# ------------------------------------------------------------------------------------------------ pairs


def _mix(pairs: Pairs, terms: _Terms, every: bool) -> Mix:
    """Return the sums over pairs as sums of pairs below: of terms in one column, or of every two."""
    from scipy.sparse import csr_matrix

    (u, v), (a, b) = ([x[pairs.i], x[pairs.j]] for x in (terms.at, terms.coefs))
    a = a * terms.gains
    if every:
        u, v, a, b = u[:, :, None], v[:, None, :], a[:, :, None], b[:, None, :]
    width, real = int(terms.at.max()) + 1, (u >= 0) & (v >= 0)
    codes, coefs = (u * width + v)[real], (a * b)[real]
    needed, column = np.unique(codes, return_inverse=True)
    matrix = csr_matrix((coefs, (np.nonzero(real)[0], column)), shape=(len(pairs.i), len(needed)))
    return Mix(pairs, Pairs.of(needed, width), {np.dtype(t): matrix.astype(t) for t in (np.float32, np.float64)})
