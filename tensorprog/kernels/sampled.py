r"""Kernels with expectations that have no dual: randomized quasi-Monte Carlo in every layer, with its error.

Expectations over jointly Gaussian coordinates are averages over scrambled Sobol points, the same ones for all inputs
and all pairs; covariances are factorized pair by pair, degenerate ones included. Independent scrambles run the whole
recursion: their mean is the kernel, their spread its standard error. What has a dual is exact in each of them.

Source: owen1997scrambled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from tensorprog.errors import NotCoveredError
from tensorprog.kernels.dual import dual
from tensorprog.kernels.plan import COL, ROW, Node, reachable, values
from tensorprog.kernels.rows import cores
from tensorprog.kernels.tiles import spans
from tensorprog.kernels.trees import Integrand, Law, Op

#: Independent scrambles; side of a tile of pairs; numbers of all samples of a few pairs that are kept at once.
SCRAMBLES, SIDE, ROOM = 8, 12, 1 << 18
#: By what the variance of points is larger than 1, times the square of their dimension.
SPREAD = 2.0
#: A variance given what comes before is zero below this part of the variance.
TINY = 1e-12


@lru_cache(maxsize=16)
def uniform(seed: int, scramble: int, dims: int, samples: int) -> np.ndarray:
    """Return scrambled Sobol points in the unit cube, shape (dims, samples)."""
    from scipy.stats import qmc

    rng = np.random.default_rng([seed, scramble, dims])
    sobol = qmc.Sobol(dims, scramble=True, bits=60, seed=rng)  # pyright: ignore[reportCallIssue] - "rng" since 1.15
    return np.clip(sobol.random(samples), 1e-16, 1 - 1e-16).T


@lru_cache(maxsize=128)
def points(seed: int, scramble: int, dims: int, used: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Return normal points, shape (used, samples), and their weights, (samples,), that add up to their number.

    Points are drawn wider than they weigh, of variance ``1 + SPREAD / used^2``: what grows like a power is mostly
    earned far out. Weighted, columns have mean 0, variance 1 and no correlation.

    >>> z, w = points(0, 0, 4, 3, 256)
    >>> bool(np.allclose((w * z) @ z.T / 256, np.eye(3))), bool(abs(w @ z.T).max() < 1e-9), bool(w.min() > 0)
    (True, True, True)
    """
    from scipy.special import ndtri

    variance = 1 + SPREAD / used**2
    z = math.sqrt(variance) * ndtri(uniform(seed, scramble, dims, samples)[:used])
    w = np.exp((z * z).sum(axis=0) * (1 / variance - 1) / 2)
    w *= samples / w.sum()
    if samples <= 2 * used:  # too few to be matched
        return z, w
    z -= (z @ w)[:, None] / samples
    return np.linalg.solve(np.linalg.cholesky((w * z) @ z.T / samples), z), w


def root(K: np.ndarray) -> np.ndarray:
    """Return lower triangular R with ``R R^T = K`` for every matrix K, (P, L, L), positive semidefinite up to noise.

    >>> R = root(np.array([[[4.0, 2.0, 2.0], [2.0, 1.0, 1.0], [2.0, 1.0, 3.0]]]))
    >>> R[0].round(6).tolist()
    [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.414214]]
    """
    R, rest = np.zeros_like(K), np.maximum(np.diagonal(K, axis1=1, axis2=2), 0.0)
    least = TINY * rest
    for j in range(K.shape[1]):
        live = rest[:, j] > least[:, j]
        size = np.sqrt(np.where(live, rest[:, j], 1.0))
        column = K[:, j:, j] - (R[:, j:, :j] @ R[:, j, :j, None])[:, :, 0]
        column[:, 0] = size * size
        reach = np.sqrt(rest[:, j:])
        column = np.where(live[:, None], np.clip(column / size[:, None], -reach, reach), 0.0)
        R[:, j:, j] = column
        rest[:, j:] = np.maximum(rest[:, j:] - column * column, 0.0)
    return R


#: Points and weights by the number of Gaussians.
Draw = Callable[[int], tuple[np.ndarray, np.ndarray]]


class Bundle:
    """Expectations of one layer over the same Gaussians (or over some of them), sampled together."""

    def __init__(self, node: Node):
        law: Law = node.args[0].data
        self.leaves = law.leaves
        self.where = {leaf: i for i, leaf in enumerate(law.leaves)}
        self.split = sum(side == ROW for _, side in law.leaves)
        self.entries = [(i, j, node.args[0].args[k], side) for i, j, k, side in law.entries]
        self.args = set(node.args[0].args)
        self.steps: dict[Op, int] = {}
        self.products: tuple[dict[tuple[int, ...], int], ...] = ({}, {})
        self.results: dict[int, list[tuple[float, int, int, list[tuple[Node, int]]]]] = {}
        self.add(node)

    def add(self, node: Node) -> None:
        """Take another expectation in."""
        made: Integrand = node.data
        self.args |= set(node.args[1:])
        at: list[int] = []
        for op in made.steps:
            if op[0] == "number":
                op = ("number", node.args[op[1] + 1].number, op[2])
            elif op[0] == "fn":
                op = ("fn", op[1], tuple(at[i] for i in op[2]))
            elif op[0] == "sum":
                op = ("sum", tuple((c, tuple(at[i] for i in refs)) for c, refs in op[1]))
            at.append(self.steps.setdefault(op, len(self.steps)))
        left, right = ([known.setdefault(tuple(sorted(at[i] for i in refs)), len(known)) for refs in products]
                       for known, products in zip(self.products, (made.rows, made.cols), strict=True))
        self.results[node.number] = [(c, left[i], right[j], [(node.args[k + 1], side) for k, side in numbers])
                                     for c, i, j, numbers in made.terms]

    def added(self, means: np.ndarray, value: Callable[[Node, int], np.ndarray]) -> dict[int, np.ndarray]:
        """Return the expectations by node, from those of products (rows' factors, columns', ...)."""
        out = {}
        for number, terms in self.results.items():
            total: Any = 0.0
            for c, i, j, numbers in terms:
                x = c * means[i, j]
                for node, side in numbers:
                    x = x * value(node, side)
                total = total + x
            out[number] = total
        return out

    def evaluate(self, sides: Sequence[int], first: int, gaussians: np.ndarray,
                 numbers: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """Return products of one input, for each side asked for an array (products, P, samples).

        Args:
            sides: the factors wanted, ROW, COL or both.
            first: the number of the leaf that is first in ``gaussians``, (P, leaves, samples).
            numbers: what the inputs have, by node, (P,).
        """
        needed = {i for side in sides for refs in self.products[side] for i in refs}
        for op, i in reversed(self.steps.items()):
            if i in needed:
                needed |= set(op[2] if op[0] == "fn" else (k for _, refs in op[1] for k in refs) if op[0] == "sum"
                              else ())
        made: dict[int, np.ndarray] = {}
        for op, i in self.steps.items():
            if i not in needed:
                continue
            if op[0] == "leaf":
                made[i] = gaussians[:, self.where[op[1:]] - first]
            elif op[0] == "number":
                made[i] = numbers[op[1]][:, None]
            elif op[0] == "fn":
                made[i] = np.asarray(op[1].fn.evaluate({}, {}, *np.broadcast_arrays(*(made[k] for k in op[2]))), float)
            else:
                made[i] = _sum(op[1], made)
        shape = (len(gaussians), gaussians.shape[2])
        return [np.stack([np.broadcast_to(_product(1.0, refs, made), shape) for refs in self.products[side]])
                for side in sides]

    def single(self, numbers: Mapping[int, np.ndarray], draw: Draw) -> dict[int, np.ndarray]:
        """Return expectations at one input: node number -> (N,); ``draw``: points and weights of so many Gaussians."""
        n, size = len(next(iter(numbers.values()))), len(self.leaves)
        K = np.zeros((n, size, size))
        for i, j, node, _ in self.entries:
            K[:, i, j] = K[:, j, i] = numbers[node.number]
        R, (z, w) = root(K), draw(2 * size)  # those of pairs
        z = z[:size]
        found = np.empty((*(len(p) for p in self.products), n))
        for part in spans(n, self.room(z.shape[1])):
            g = (R[part].reshape(-1, size) @ z).reshape(-1, size, z.shape[1])
            left, right = self.evaluate((ROW, COL), 0, g, {k: v[part] for k, v in numbers.items()})
            found[:, :, part] = ((left * w).transpose(1, 0, 2) @ right.transpose(1, 2, 0)).transpose(1, 2, 0)
        return self.added(found / z.shape[1], lambda node, side: numbers[node.number])

    def room(self, samples: int) -> int:
        """Return at how many inputs all steps are evaluated together."""
        return max(1, ROOM // (samples * (len(self.leaves) + len(self.steps))))

    def pairs(self, rows: Mapping[int, np.ndarray], cols: Mapping[int, np.ndarray], made: Mapping[int, np.ndarray],
              shape: tuple[int, int], draw: Draw) -> dict[int, np.ndarray]:
        """Return expectations of pairs: node number -> (R, C); ``made``: nodes of pairs that are known."""
        size, split = len(self.leaves), self.split
        K = np.zeros((*shape, size, size))

        def value(node: Node, side: int) -> np.ndarray:
            return _at(node, side, rows, cols, made)

        for i, j, node, side in self.entries:
            K[:, :, i, j] = K[:, :, j, i] = value(node, side)
        R = root(K.reshape(-1, size, size)).reshape(K.shape)
        z, w = draw(size)
        own = (R[:, 0, :split, :split].reshape(-1, split) @ z[:split]).reshape(shape[0], split, -1)
        left = self.evaluate((ROW,), 0, own, rows)[0] * w
        found = np.empty((len(left), len(self.products[COL]), *shape))
        for part in spans(shape[1], self.room(z.shape[1])):
            numbers = {k: v[part] for k, v in cols.items()}
            for r in range(shape[0]):
                g = (R[r, part, split:].reshape(-1, size) @ z).reshape(-1, size - split, z.shape[1])
                (right,) = self.evaluate((COL,), split, g, numbers)
                found[:, :, r, part] = (right @ left[:, r].T).transpose(2, 0, 1)
        return self.added(found / z.shape[1], value)


def _product(c: float, refs: Sequence[int], made: Mapping[int, np.ndarray]) -> Any:
    total: Any = c
    for k in refs:
        total = made[k] if isinstance(total, float) and total == 1.0 else total * made[k]
    return total


def _sum(terms: Sequence[tuple[float, tuple[int, ...]]], made: Mapping[int, np.ndarray]) -> np.ndarray:
    total: Any = 0.0
    for c, refs in terms:
        total = total + _product(c, refs, made)
    return np.asarray(total) if np.ndim(total) else np.full((1, 1), total)


def bundled(nodes: Iterable[Node]) -> list[Bundle | Node]:
    """Return the nodes in an order in which they can be computed, expectations of one layer together.

    A layer's expectations need only those of the layers below; one whose Gaussians are among another's joins it.
    """
    nodes, level = list(nodes), {}
    for x in nodes:
        level[x.number] = max((level[a.number] for a in x.args), default=0) + (x.op == "expect")
    out: list[tuple[tuple, Bundle | Node]] = []
    made: list[tuple[tuple, frozenset, Bundle]] = []
    for x in sorted(nodes, key=lambda x: -len(x.args[0].data.leaves) if x.op == "expect" else 0):
        if x.op == "law":
            continue
        if x.op != "expect":
            out.append(((level[x.number], 1, x.number), x))
            continue
        kind, leaves = (level[x.number], x.space), frozenset(x.args[0].data.leaves)
        home = next((b for k, ls, b in made if k == kind and leaves <= ls), None)
        if home is not None:
            home.add(x)
            continue
        made.append((kind, leaves, Bundle(x)))
        out.append(((level[x.number], 0, x.number), made[-1][2]))
    return [x for _, x in sorted(out, key=lambda p: p[0])]


Data = Mapping[str, np.ndarray]
Table = Sequence[Sequence[Node]]


class Order:
    """Nodes in the order in which they are computed: those of an input, then those of a pair.

    Args:
        table: the nodes wanted. more: others.
    """

    def __init__(self, table: Table, more: Table = ()):
        self.table = table
        nodes = reachable(x for row in (*table, *more) for x in row)
        order, space = bundled(nodes), {x.number: x.space for x in nodes}
        self.laws = [x for x in nodes if x.op == "law"]
        sampled: set[int] = set()
        for x in nodes:
            if x.op == "expect" or any(a.number in sampled for a in x.args):
                sampled.add(x.number)
        #: What is the same whatever the samples are.
        self.sure = [x for x in nodes if x.number not in sampled and x.op != "law"]
        self.singles = [b for b in order if isinstance(b, Bundle) and space[next(iter(b.results))] == "one"]
        self.steps = [b for b in order if (b.space if isinstance(b, Node) else space[next(iter(b.results))]) == "pair"]
        self.inputs = [x for x in nodes if x.space != "pair" and x.op != "law"]
        self.dims = max((len(b.leaves) for b in order if isinstance(b, Bundle)), default=1)


class Sampler:
    """The kernels of several outputs at once.

    Args:
        roots: returns for every output a row of nodes of pairs. diagonals: the same at one input.
        samples: points of a scramble, a power of 2; ``seed``: a whole number >= 0.
    """

    def __init__(self, roots: Callable[[], Table], diagonals: Table, samples: int, seed: int):
        self.roots, self.diagonals, self.samples, self.seed = roots, diagonals, samples, seed

    @cached_property
    def single(self) -> Order:
        """What is computed for K(x, x)."""
        return Order(self.diagonals)

    @cached_property
    def whole(self) -> Order:
        """What is computed for all pairs, made when it is first asked for."""
        return Order(self.roots(), self.diagonals)

    def draw(self, scramble: int) -> Draw:
        """Return what returns points for so many Gaussians, the same ones wherever there are as many."""
        most = 2 * self.single.dims  # pairs have at most twice as many as one input
        return lambda used: points(self.seed, scramble, most, used, self.samples)

    def one(self, order: Order, data: Data, n: int) -> list[dict[int, np.ndarray]]:
        """Return what every input has, by node, for every scramble."""
        sure = values([x for x in order.sure if x.space != "pair"], data, n) | {x.number: None for x in order.laws}
        out = []
        for scramble in range(SCRAMBLES):
            known: dict[int, Any] = sure
            draw = self.draw(scramble)
            for bundle in order.singles:
                known = values(bundle.args, data, n, fixed=known)
                known |= bundle.single({a.number: _wide(known[a.number], n) for a in bundle.args}, draw)
            known = values(order.inputs, data, n, fixed=known)
            out.append({x.number: _wide(known[x.number], n, x.space == "vector") for x in order.inputs})
        return out

    def tile(self, rows: Sequence[Mapping[int, np.ndarray]], cols: Sequence[Mapping[int, np.ndarray]],
             shape: tuple[int, int]) -> np.ndarray:
        """Return all kernels of a tile of pairs, (scrambles, outputs, outputs, R, C)."""
        sure: dict[int, np.ndarray] = {}
        for x in self.whole.sure:
            if x.space == "pair":
                sure[x.number] = _PAIR[x.op](x, rows[0], cols[0], sure, shape)
        out = []
        for scramble, (left, right) in enumerate(zip(rows, cols, strict=True)):
            made, draw = dict(sure), self.draw(scramble)
            for step in self.whole.steps:
                if isinstance(step, Bundle):
                    made |= step.pairs(left, right, made, shape, draw)
                elif step.number not in made:
                    made[step.number] = _PAIR[step.op](step, left, right, made, shape)
            out.append([[made[x.number] if x.space == "pair" else np.broadcast_to(left[x.number][:, None], shape)
                         for x in row] for row in self.whole.table])
        return np.array(out)

    def diagonal(self, one: Mapping[int, np.ndarray]) -> np.ndarray:
        """Return K(x, x) of every input, (outputs, outputs, N)."""
        return np.array([[one[x.number] for x in row] for row in self.diagonals])

    def diagonals_of(self, data: Data, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return K(x, x) and its standard error, (outputs, outputs, N) each."""
        return _spread(np.array([self.diagonal(x) for x in self.one(self.single, data, n)]))

    def estimate(self, one: Data, two: Data | None, n1: int, n2: int, *, workers: int | None = None,
                 progress: Callable[[int, int], object] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return all kernels and their standard errors, (outputs, outputs, N1, N2) each; symmetric without ``two``."""
        if two is None and n1 == 1:
            value, error = self.diagonals_of(one, n1)
            return value[..., None], error[..., None]
        count, threads = len(self.diagonals), max(1, cores() if workers is None else workers)
        value, error = np.empty((count, count, n1, n2)), np.empty((count, count, n1, n2))
        side = max(SIDE // 2, min(SIDE, -(-max(n1, n2) // threads)))
        tiles = [(r, c) for r in spans(n1, side) for c in spans(n2, side) if two is not None or c.start >= r.start]
        rows = self.one(self.whole, one, n1)
        cols = rows if two is None else self.one(self.whole, two, n2)

        def work(tile: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
            r, c = tile
            shape = (r.stop - r.start, c.stop - c.start)
            found = self.tile([{k: v[r] for k, v in x.items()} for x in rows],
                              [{k: v[c] for k, v in x.items()} for x in cols], shape)
            if two is None and r.start == c.start:
                np.copyto(found, found.transpose(0, 2, 1, 4, 3).copy(), where=np.tri(shape[0], k=-1, dtype=bool))
                here = np.arange(shape[0])
                found[..., here, here] = np.array([self.diagonal(x)[:, :, r] for x in rows])
            return _spread(found)

        with ThreadPoolExecutor(threads) as pool:
            try:
                jobs = [(r, c, pool.submit(work, (r, c))) for r, c in tiles]
                for done, (r, c, job) in enumerate(jobs, 1):
                    value[:, :, r, c], error[:, :, r, c] = job.result()
                    if two is None and r.start != c.start:
                        for x in (value, error):
                            x[:, :, c, r] = x[:, :, r, c].transpose(1, 0, 3, 2)
                    if progress is not None:
                        progress(done, len(tiles))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return value, error


def _spread(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over scrambles, the first axis, and its standard error."""
    if not np.isfinite(found).all():
        raise NotCoveredError("a sampled expectation", found[~np.isfinite(found)][0], "a function of the network is "
                              "not finite at a sample", "functions that are defined on the whole real line")
    return found.mean(axis=0), found.std(axis=0, ddof=1) / len(found) ** 0.5


def _wide(x: Any, n: int, vector: bool = False) -> np.ndarray:
    x = np.asarray(x, float)
    return np.broadcast_to(x, (n, x.shape[-1]) if vector else (n,))


def _at(node: Node, side: int, rows, cols, made) -> np.ndarray:
    """Return a node of a pair, of its row or of its column, as something that an (R, C) array is multiplied with."""
    if node.space == "pair":
        return made[node.number]
    return cols[node.number][None] if side == COL else rows[node.number][:, None]


def _gram(node: Node, rows, cols, made, shape):
    u, v = (x[a.number] for x, a in zip((rows, cols), node.args, strict=True))
    return u @ v.T


def _dual(node: Node, rows, cols, made, shape):
    q1, q2, c = node.args
    common, out = np.array(np.broadcast_to(_at(c, ROW, rows, cols, made), shape)), np.empty(shape)
    dual(*node.data).block(rows[q1.number][:, None], cols[q2.number][None], common, out, None)
    return out


def _total(node: Node, rows, cols, made, shape):
    total = np.zeros(shape)
    for c, factors in node.data:
        x: Any = c
        for i, side in factors:
            x = x * _at(node.args[i], side, rows, cols, made)
        total += x
    return total


_PAIR: dict[str, Callable] = {"gram": _gram, "dual": _dual, "total": _total}
