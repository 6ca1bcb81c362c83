"""When lines run, which matrix-vector products run together, and how long a variable lives."""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from dataclasses import dataclass

from tensorprog.program.instructions import Instruction, MatMul
from tensorprog.program.program import Program


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order; a step is one line, or several ``MatMul`` by one matrix in one orientation.

    Args:
        steps: the lines of each step.
        dying: for each step, the variables whose last use it is.
        products: matrix -> numbers of ``W @ x`` and of ``W.T @ y`` lines.
    """

    steps: tuple[tuple[Instruction, ...], ...]
    dying: tuple[tuple[str, ...], ...]
    products: dict[str, tuple[int, int]]


#: Plans of frozen programs still alive, by identity: comparing programs costs more than planning one.
_PLANS: dict[int, tuple[weakref.ref, Schedule]] = {}


def schedule(program: Program) -> Schedule:
    """Return the schedule of a program, made once for a frozen one; see ``make_schedule``."""
    if not program.is_frozen:
        return make_schedule(program)
    key = id(program)
    if key not in _PLANS:
        _PLANS[key] = weakref.ref(program, lambda _: _PLANS.pop(key, None)), make_schedule(program)
    return _PLANS[key][1]


def make_schedule(program: Program) -> Schedule:
    """Return the schedule that runs every product as early as it can, with all others by its matrix that can.

    The level of a line is the number of products on the longest path to it; products of one level and one
    matrix become one matrix-matrix product.

    >>> p = Program()
    >>> n = p.dim("n")
    >>> W, x, y = p.matrix("W", n, n), p.vector("x", n), p.vector("y", n)
    >>> p.output(p.mean((W @ x) * (W @ (W @ y))))
    >>> [len(step) for step in make_schedule(p).steps]
    [1, 1, 1, 2, 1, 1]
    """
    level: dict[str, int] = {}
    products: Counter = Counter()
    matmuls: dict[int, dict[tuple[str, bool], list[Instruction]]] = defaultdict(lambda: defaultdict(list))
    others: dict[int, list[Instruction]] = defaultdict(list)
    for line in program.lines:
        k = max((level[a] for a in line.args), default=0)
        if isinstance(line, MatMul):
            products[line.matrix, line.transposed] += 1
            matmuls[k][line.matrix, line.transposed].append(line)
            level[line.out] = k + 1
        else:
            others[k].append(line)
            level[line.out] = k
    steps: list[tuple[Instruction, ...]] = []
    for k in range(max(level.values(), default=-1) + 1):
        steps += [(line,) for line in others[k]]
        steps += [tuple(group) for group in matmuls[k].values()]

    last = {name: i for i, step in enumerate(steps) for line in step for name in (line.out, *line.args)}
    dying: list[list[str]] = [[] for _ in steps]
    for name, i in last.items():
        dying[i].append(name)
    uses = {m: (products[m, False], products[m, True]) for m in dict.fromkeys(m for m, _ in products)}
    return Schedule(tuple(steps), tuple(map(tuple, dying)), uses)
