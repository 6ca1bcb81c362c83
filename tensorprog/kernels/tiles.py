"""Running what pairs of inputs have, tile by tile: all layers of a tile, which stays in the cache, before the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorprog.kernels.closed import Closed
from tensorprog.kernels.dual import Dual, dual
from tensorprog.kernels.plan import BOTH, COL, ROW, Node, reachable
from tensorprog.kernels.rows import BLOCK, LONG, on_cores, portions, product

#: Side of a square tile.
SIDE = 160
#: Numbers of a thread's tiles together, at most: where many are alive they are smaller.
ROOM = 1 << 22
#: Rows of a tile, and strips that a symmetric matrix is cut into: half of every tile on its diagonal is for nothing.
ROWS, STRIPS = 128, 8


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a pair, with the node of the slopes that is made beside it, and what is not needed afterwards.

    Of a sum: ``terms``, each a number, nodes of the pair, of the row's input and of the column's; and ``spare``, what
    one of them may be written over.
    """

    node: Node
    slope: Node | None
    dying: frozenset[int]
    dual: Dual | None
    terms: Sequence[tuple[float, Sequence[int], Sequence[int], Sequence[int]]] = ()
    spare: frozenset[int] = frozenset()

    @staticmethod
    def of(x: Node, slope: Node | None, dying: frozenset[int]) -> Step:
        """Return the step that makes a node."""
        if x.op != "total":
            return Step(x, slope, dying, dual(*x.data) if x.op == "dual" else None)
        def numbers(factors: Sequence[tuple[int, int]], at: int) -> list[int]:
            return [x.args[i].number for i, side in factors if side == at]

        terms = [(c, numbers(fs, BOTH), numbers(fs, ROW), numbers(fs, COL)) for c, fs in x.data]
        uses = [k for _, pairs, _, _ in terms for k in pairs]
        spare = frozenset(k for k in dying if uses.count(k) == 1)
        # First a product that can be written over one of its factors, last what needs no array of its own.
        terms.sort(key=lambda t: (not t[1], not spare & set(t[1])))
        return Step(x, slope, dying, None, terms, spare)


class Schedule:
    """The order in which the nodes of a pair are made, and how many arrays are alive at once (``width``)."""

    rows = ROWS

    def __init__(self, root: Node):
        nodes = _by_layers([x for x in reachable([_reusing(root)]) if x.space == "pair"])
        self.root = root = nodes[-1] if nodes else root
        self.inputs = [a for x in [*nodes, root] for a in (*x.args, x) if a.space != "pair"]
        groups: dict[tuple, list[Node]] = {}
        for x in nodes:
            if x.op == "dual":
                groups.setdefault(tuple(a.number for a in x.args), []).append(x)
        beside: dict[int, Node] = {}
        makers: dict[int, Node] = {}  # of slopes: what they are made beside
        for group in groups.values():
            by_functions = {x.data: x for x in group}
            for x in group:
                other = by_functions.get(tuple(f.partial() for f in x.data))
                taken = makers.keys() | beside.keys()
                if other is not None and other is not x and taken.isdisjoint((x.number, other.number)):
                    beside[x.number], makers[other.number] = other, x
        first = {makers.get(x.number, x).number: makers.get(x.number, x) for x in nodes}  # a slope may be used before
        order = [(x, beside.get(x.number)) for x in first.values()]
        last: dict[int, int] = {root.number: len(order)}
        for i, (x, _) in enumerate(order):
            last |= {a.number: max(i, last.get(a.number, 0)) for a in x.args if a.space == "pair"}
        self.steps = [Step.of(x, y, frozenset(a.number for a in x.args if last.get(a.number) == i))
                      for i, (x, y) in enumerate(order)]
        alive, self.width = 0, 1
        for step in self.steps:
            alive += 1 + (step.slope is not None)
            self.width = max(self.width, alive + 1)
            alive -= len(step.dying)

    def features(self, one: Mapping[Any, np.ndarray]) -> dict[tuple[int, int], np.ndarray]:
        """Return what duals need of the inputs' variances beforehand, by the dual's node and the side; see ``run``."""
        out: dict[tuple[int, int], np.ndarray] = {}
        for step in self.steps:
            if step.dual is not None and (step.slope is None or step.dual.both):
                q1, q2, _ = step.node.args
                found = step.dual.features(one[q1.number])
                other = found if q1 is q2 else step.dual.features(one[q2.number])
                out |= {(step.node.number, k): x[k] for k, x in ((ROW, found), (COL, other)) if x is not None}
            if sum(x.size for x in out.values()) > ROOM:
                return {}
        return out

    def run(self, rows: Mapping[Any, np.ndarray], cols: Mapping[Any, np.ndarray], out: np.ndarray, free: list,
            given: Mapping[int, np.ndarray] | None = None) -> None:
        """Write one tile.

        Args:
            rows, cols: what the inputs of the tile have, by the number of the node; and some of the ``features``.
            out: where the result goes, (R, C).
            free: flat arrays that may be used; more are added.
            given: nodes of pairs that are known.
        """
        tile = _Tile(rows, cols, out, free)
        for step in self.steps:
            x = step.node
            if given is not None and x.number in given:
                tile.made[x.number] = tile.take()
                tile.made[x.number][...] = given[x.number]
            elif x.op == "gram":
                u, v = x.args
                tile.made[x.number] = tile.take()
                product(rows[u.number], cols[v.number], tile.made[x.number])
            elif x.op == "dual":
                tile.dual(step)
            else:
                tile.total(step)
            for k in step.dying:
                tile.release(k)
        if self.root.space == "pair":
            out[...] = tile.made[self.root.number]
            tile.release(self.root.number)
        else:
            out[...] = np.reshape(rows[self.root.number], (-1, 1)) if self.root.space == "one" else self.root.data


def _reusing(root: Node) -> Node:
    """Return the same with ``s K + e`` written ``c + (e - b)`` wherever ``c = s K + b`` is made in any case.

    A layer's tangent kernel is ``s (K + K' T)`` plus numbers if weights learn at the rate of their variance.
    """
    nodes = reachable([root])
    known: dict[tuple[int, float], tuple[Node, float]] = {}
    for x in nodes:
        if x.op == "total" and x.space == "pair":
            plain = [(c, fs) for c, fs in x.data if fs]
            if len(plain) == 1 and len(plain[0][1]) == 1 and plain[0][1][0][1] == BOTH:
                k = x.args[plain[0][1][0][0]]
                known.setdefault((k.number, plain[0][0]), (x, sum(c for c, fs in x.data if not fs)))
    made: dict[int, Node] = {}
    for x in nodes:
        args, data = [made[a.number] for a in x.args], x.data
        if x.op == "total" and x.space == "pair" and len(data) > 1:
            terms, number = [], 0.0
            for c, fs in data:
                c_node, b = known.get((x.args[fs[0][0]].number, c), (x, 0.0)) if len(fs) == 1 else (x, 0.0)
                if not fs:
                    number += c
                elif c_node.number < x.number and fs[0][1] == BOTH:
                    args.append(made[c_node.number])
                    terms.append((1.0, ((len(args) - 1, BOTH),)))
                    number -= b
                else:
                    terms.append((c, fs))
            used = sorted({i for _, fs in terms for i, _ in fs})
            data = tuple((c, tuple((used.index(i), s) for i, s in fs)) for c, fs in terms)
            data += ((number, ()),) if number else ()
            args = [args[i] for i in used]
        same = data is x.data and all(a is b for a, b in zip(args, x.args, strict=True))
        made[x.number] = x if same else replace(x, args=tuple(args), data=data)
    return made[root.number]


def _by_layers(nodes: list[Node]) -> list[Node]:
    """Return nodes in an order in which all of a layer comes before the next: few arrays are alive at once."""
    layer: dict[int, int] = {}
    for x in nodes:
        layer[x.number] = max((layer.get(a.number, 0) for a in x.args), default=0) + (x.op == "dual")
    return sorted(nodes, key=lambda x: (layer[x.number], x.number))


class _Tile:
    def __init__(self, rows, cols, out: np.ndarray, free: list):
        self.rows, self.cols, self.shape, self.dtype, self.free = rows, cols, out.shape, out.dtype, free
        self.made: dict[int, np.ndarray] = {}

    def take(self) -> np.ndarray:
        size = self.shape[0] * self.shape[1]
        while self.free:
            whole = self.free.pop()
            if whole.size >= size:
                return whole[:size].reshape(self.shape)
        return np.empty(size, self.dtype).reshape(self.shape)  # a view, so that every array has a base

    def release(self, number: int) -> None:
        array = self.made.pop(number, None)
        if array is not None:
            self.free.append(array.base)

    def dual(self, step: Step) -> None:
        x = step.node
        q1, q2, c = x.args
        at = self.made[c.number] if c.space == "pair" else self.fill(c)
        mine = c.number in step.dying or c.space != "pair"  # then c may be written over
        out = at if mine else self.take()
        slope = None if step.slope is None else self.take()
        assert step.dual is not None
        left, right = self.rows.get((x.number, ROW)), self.cols.get((x.number, COL))
        if left is not None and right is not None and out.size <= LONG:
            step.dual.tile(left, right, at, out, slope)
        else:
            step.dual.block(_column(self.rows[q1.number]), _row(self.cols[q2.number]), at, out, slope)
        if mine:
            self.made.pop(c.number, None)
        self.made[x.number] = out
        if step.slope is not None and slope is not None:
            self.made[step.slope.number] = slope

    def fill(self, c: Node) -> np.ndarray:
        array = self.take()
        array[...] = c.data
        return array

    def total(self, step: Step) -> None:
        total: np.ndarray | None = None
        for c, pairs, rows, cols in step.terms:
            row, col = _product([self.rows[k] for k in rows]), _product([self.cols[k] for k in cols])
            if total is not None and not pairs and (row is None or col is None):
                total += c if row is None and col is None else c * np.asarray(col if row is None else _column(row))
                continue
            if total is not None and len(pairs) == 1 and c == 1.0 and row is None and col is None:
                total += self.made[pairs[0]]
                if pairs[0] in step.spare:
                    self.release(pairs[0])
                continue
            mine = next((k for k in pairs if k in step.spare), None)
            target = self.take() if mine is None else self.made[mine]
            self.term(target, mine, c, pairs, row, col)
            if total is None:
                total = target
                if mine is not None:
                    del self.made[mine]
            else:
                total += target
                if mine is None:
                    self.free.append(target.base)
        assert total is not None
        self.made[step.node.number] = total

    def term(self, target: np.ndarray, mine: int | None, c: float, pairs, row, col) -> None:
        rest = list(pairs)
        if mine is not None:
            rest.remove(mine)
        elif len(rest) > 1:
            np.multiply(self.made[rest.pop()], self.made[rest.pop()], out=target)
        elif rest and row is None:
            np.multiply(self.made[rest.pop()], c, out=target)
            c = 1.0
        elif rest:
            np.multiply(self.made[rest.pop()], _column(c * row), out=target)
            row, c = None, 1.0
        else:
            target[...] = c
            c = 1.0
        for k in rest:
            target *= self.made[k]
        if row is not None:
            target *= _column(c * row)
        elif c != 1.0:
            target *= c
        if col is not None:
            target *= _row(col)


def _product(arrays: list) -> np.ndarray | None:
    if not arrays:
        return None
    total = arrays[0]
    for a in arrays[1:]:
        total = total * a
    return total


def _column(x: np.ndarray) -> np.ndarray:
    return x[:, None]


def _row(x: np.ndarray) -> np.ndarray:
    return x[None, :]


# ------------------------------------------------------------------------------------------- whole matrices


def spans(n: int, side: int = SIDE) -> list[slice]:
    """Return equal parts of range(n) of at most ``side`` each.

    >>> spans(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    parts = -(-n // side)
    step = -(-n // max(parts, 1)) if n else 1
    return [slice(k, min(k + step, n)) for k in range(0, n, step)]


def cut(n1: int, n2: int, symmetric: bool, area: int = BLOCK, most: int = ROWS) -> list[tuple[slice, slice]]:
    """Return tiles of about ``area`` numbers that cover a matrix, or all of a symmetric one that is not mirrored.

    >>> cut(2, 3, False, 4)
    [(slice(0, 2, None), slice(0, 2, None)), (slice(0, 2, None), slice(2, 3, None))]
    >>> cut(3, 3, True, 2)
    [(slice(0, 1, None), slice(0, 2, None)), (slice(0, 1, None), slice(2, 3, None)),
     (slice(1, 2, None), slice(1, 3, None)), (slice(2, 3, None), slice(2, 3, None))]
    """
    side = min(most, math.isqrt(area))
    rows = spans(n1, max(1, min(side, max(n1 // STRIPS, side // 4))) if symmetric else side)
    return [(r, slice(start + c.start, start + c.stop)) for r in rows for start in (r.start if symmetric else 0,)
            for c in spans(n2 - start, max(1, area // (r.stop - r.start)))]


def fill(schedule: Any, one: Mapping[int, np.ndarray], two: Mapping[int, np.ndarray] | None, out: np.ndarray, *,
         area: int | None = None, workers: int | None = None,
         progress: Callable[[int, int], object] | None = None) -> None:
    """Write a whole matrix; without ``two`` it is symmetric and only one of K[i, j], K[j, i] is computed.

    Beside ``out`` this takes ``workers * schedule.width * area`` numbers (and what the formulas need of that kind);
    ``area`` is chosen unless given.
    """
    whole = isinstance(schedule, Schedule)
    slow = whole and any(x.dual is not None and not isinstance(x.dual.formula, Closed) for x in schedule.steps)
    count, most = portions(out.size // (1 if two is not None else 2), workers, slow)
    area = max(1, min(area or most, ROOM // schedule.width))
    rows = {**one, **schedule.features(one)} if whole else one
    cols = rows if two is None else {**two, **schedule.features(two)} if whole else two

    def worker() -> Callable[[tuple[slice, slice]], None]:
        free: list = []

        def work(tile: tuple[slice, slice]) -> None:
            r, c = tile
            schedule.run({k: v[r] for k, v in rows.items()}, {k: v[c] for k, v in cols.items()}, out[r, c], free)
            if two is None:
                if c.start == r.start:
                    square = out[r, r]
                    np.copyto(square, square.T.copy(), where=np.tri(len(square), dtype=bool))
                    c = slice(r.stop, c.stop)
                out[c, r] = out[r, c].T

        return work

    on_cores(worker, cut(len(out), out.shape[1], two is None, area, schedule.rows), count, progress)
